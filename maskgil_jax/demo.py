"""A page to draw on: python -m maskgil_jax.demo --model=DIR.

Class, prompt or speech to pictures, which fill in step by step; requests that wait are drawn
together. Needs '.[demo]', Gradio. It listens on this machine alone unless --host says otherwise.
"""

from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.workflows.options import DemoOptions as Options


def main(argv: Sequence[str]) -> int:
    """Serve the page; returns the exit code."""
    return command.run(argv, Options, demo, __doc__)


def demo(options: Options) -> None:
    """Serve the page of the model that the options name."""
    from maskgil_jax.workflows import demo_page

    demo_page.serve(options)


if __name__ == "__main__":
    command.start(main)

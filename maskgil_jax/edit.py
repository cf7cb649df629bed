"""Redraw parts of images: python -m maskgil_jax.edit --model=DIR --image=A.png --mask=M.png ...

White pixels of the mask are drawn anew, of a class (--classes=207), a prompt (--prompts=FILE) or
what else the model was trained on; all others stay exactly as they are. --canvas=512x384 draws
around an image instead, --box=LEFT,TOP,RIGHT,BOTTOM needs no mask. Images may be of any size; of
folders (--image=IMAGES --mask=MASKS) each image has a mask of its name. What was stopped goes on
where it was when it is started again.
"""

from collections.abc import Sequence

from maskgil_jax.generation.options import EditOptions as Options
from maskgil_jax.runtime import command


def main(argv: Sequence[str]) -> int:
    """Edit; returns the exit code."""
    return command.run(argv, Options, edit, __doc__, goes_on=True)


def edit(options: Options) -> None:
    """Redraw what the options ask for."""
    from maskgil_jax.generation import edited_files

    edited_files.edit(options)


if __name__ == "__main__":
    command.start(main)

"""Exchange weights with PyTorch and Flax.

python -m maskgil_jax.convert import --format=NAME --source=FILE --output=DIR [--arg=heads=4]
python -m maskgil_jax.convert export --format=NAME --source=DIR --output=FILE.safetensors
python -m maskgil_jax.convert export --format=maskgil --source=DIR --output=FOLDER
python -m maskgil_jax.convert export --format=stablehlo --source=DIR --output=FOLDER --arg=batch=8
"""

import dataclasses
from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is converted, and in which direction."""

    direction: str = option("whereto", choices=("import", "export"), positional=True)
    format: str = option("llamagen-vq, taming-vqgan, ... (an unknown one lists all)")
    source: str = option("file, directory or index to import, or model directory to export")
    output: str = option("model directory to write, or file, or folder")
    arg: tuple[str, ...] = option(
        "NAME=VALUE: what tensors do not tell, as heads=4; weights=ema; of exports to a folder "
        "tokenizer=DIR, steps=12, ...",
        (),
        repeated=True,
    )
    allow_nonfinite: bool = option("import weights that are NaN or infinite too", False)


def main(argv: Sequence[str]) -> int:
    """Convert; returns the exit code."""
    return command.run(argv, Options, convert, __doc__)


def convert(options: Options) -> None:
    """Import or export the weights that the options name."""
    from maskgil_jax.interop import conversion

    paths = options.format, options.source, options.output
    arguments = conversion.parse_arguments(options.arg)
    if options.direction == "export":
        conversion.export_model(*paths, arguments)
        return
    conversion.import_model(*paths, arguments, options.allow_nonfinite)


if __name__ == "__main__":
    command.start(main)

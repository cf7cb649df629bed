"""Exchange weights with PyTorch and Flax, and bundle a model with all that it needs.

python -m maskgil_jax.convert import --format=NAME --source=FILE --output=DIR [--arg=heads=4]
python -m maskgil_jax.convert export --format=NAME --source=DIR --output=FILE.safetensors
python -m maskgil_jax.convert export --format=maskgil --source=DIR --output=FOLDER
python -m maskgil_jax.convert export --format=stablehlo --source=DIR --output=FOLDER --arg=batch=8
python -m maskgil_jax.convert bundle --source=RUN/model --output=DIR
"""

import dataclasses
from collections.abc import Sequence

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is converted, and in which direction."""

    direction: str = option("whereto", choices=("import", "export", "bundle"), positional=True)
    format: str = option("llamagen-vq, taming-vqgan, ... (an unknown one lists all)", "")
    source: str = option("file, directory or index to import, or model directory")
    output: str = option("model directory to write, or file, or folder")
    arg: tuple[str, ...] = option(
        "NAME=VALUE: what tensors do not tell, as heads=4; weights=ema; of exports to a folder "
        "steps=12, batch=8, ...",
        (),
        repeated=True,
    )
    allow_nonfinite: bool = option("import weights that are NaN or infinite too", False)
    tokenizer: str = option("of a bundle or folder: directory; default: the generator's own", "")
    encoder: str = option("of a bundle: directory; default: the generator's own", "")
    with_encoder: bool = option("puts the encoder of text or speech into the bundle too", False)


GO_WITH = {  # of options that not every direction takes
    "format": ("import", "export"),
    "arg": ("import", "export"),
    "allow_nonfinite": ("import",),
    "tokenizer": ("export", "bundle"),
    **dict.fromkeys(("encoder", "with_encoder"), ("bundle",)),
}


def main(argv: Sequence[str]) -> int:
    """Convert; returns the exit code."""
    return command.run(argv, Options, convert, __doc__)


def convert(options: Options) -> None:
    """Import, export or bundle what the options name."""
    for field in dataclasses.fields(options):
        value, goes_with = getattr(options, field.name), GO_WITH.get(field.name)
        if goes_with and value != field.default and options.direction not in goes_with:
            raise InputError(f"{field.name}={value} goes with {' and '.join(goes_with)} alone")
    if options.direction == "bundle":
        from maskgil_jax.workflows import bundle

        parts = bundle.Parts(
            source=options.source,
            tokenizer=options.tokenizer,
            encoder=options.encoder,
            with_encoder=options.with_encoder,
        )
        bundle.bundle(parts, options.output)
        return
    from maskgil_jax.interop import conversion

    paths = options.format, options.source, options.output
    arguments = conversion.parse_arguments(options.arg)
    if options.direction == "export":
        conversion.export_model(*paths, arguments, options.tokenizer)
        return
    conversion.import_model(*paths, arguments, options.allow_nonfinite)


if __name__ == "__main__":
    command.start(main)

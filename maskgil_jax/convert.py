"""Exchange weights with PyTorch and Flax.

python -m maskgil_jax.convert import --format=NAME --source=FILE --output=DIR [--arg=heads=4]
python -m maskgil_jax.convert export --format=NAME --source=DIR --output=FILE.safetensors
"""

from absl import flags

from maskgil_jax.runtime import command


def main(direction: str) -> None:
    """Parse the flags and convert."""
    from maskgil_jax.interop import conversion

    values = flags.FLAGS
    format_name, source, output = (command.required(n) for n in ("format", "source", "output"))
    if direction == "import":
        arguments = conversion.parse_arguments(values.arg)
        conversion.import_model(format_name, source, output, arguments, values.allow_nonfinite)
    else:
        conversion.export_model(format_name, source, output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("format", None, "llamagen-vq, taming-vqgan, ... (an unknown one lists all)")
    flags.DEFINE_string(
        "source", None, "file, directory or index to import, or model directory to export"
    )
    flags.DEFINE_string("output", None, "model directory to write, or file")
    flags.DEFINE_multi_string(
        "arg", [], "NAME=VALUE that the tensors do not tell, as heads=4; weights=ema"
    )
    flags.DEFINE_bool("allow_nonfinite", False, "import weights that are NaN or infinite too")


if __name__ == "__main__":
    define_flags()
    command.run(main, verbs=("import", "export"))

"""Exchange weights with PyTorch.

python -m maskgil_jax.convert import --format=NAME --source=FILE --output=DIR [--arg=heads=4]
python -m maskgil_jax.convert export --format=NAME --source=DIR --output=FILE.safetensors
"""

import logging
from types import ModuleType
from typing import Any

from absl import flags

from maskgil_jax import command
from maskgil_jax.errors import InputError

log = logging.getLogger("maskgil_jax")


def formats() -> dict[str, ModuleType]:
    """The foreign formats by name."""
    from maskgil_jax.interop import llamagen_vq, maskgil_gpt

    return {"llamagen-vq": llamagen_vq, "maskgil-gpt": maskgil_gpt}


def import_model(format_name: str, source: str, output: str, arguments: dict[str, Any]) -> None:
    """Foreign checkpoint to model directory.

    Args:
      format_name: a key of `formats`.
      source: .safetensors, .pt, .pth or .ckpt.
      output: directory that is not there yet.
      arguments: what the tensors do not tell, such as {"heads": 4}.

    Raises:
      InputError: an unreadable file, or tensors that do not fit (all of them listed).
    """
    import jax
    from etils import epath

    from maskgil_jax import api
    from maskgil_jax.interop import engine, files

    if epath.Path(output).exists():
        raise InputError(f"--output={output} exists; choose another directory or remove it")
    family = _family(format_name)
    tensors = files.read(source, family.STATE_DICT_KEYS)
    try:
        config = family.config(tensors, **arguments)
    except KeyError as error:
        raise InputError(f"--source={source} is not {format_name}: it has no {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"--source={source} as {format_name}: {error}") from None
    log.info("%s", config)  # with what the tensors do not tell and --arg did not say
    network_class = next(n for n, c in api.NETWORKS.values() if isinstance(config, c))
    like = jax.eval_shape(lambda: network_class(config, jax.random.key(0)))
    network = engine.load(family.entries(config), tensors, like)
    _wrapper(family)(network).save(output)
    log.info("wrote %s", output)


def export_model(format_name: str, source: str, output: str) -> None:
    """Model directory to a file that the official class loads with `strict=True`.

    Raises:
      InputError: a model that the format cannot express.
    """
    from maskgil_jax import api
    from maskgil_jax.interop import engine, files

    family, model = _family(format_name), api.load(source)
    if not isinstance(model, _wrapper(family)):
        raise InputError(f"--source={source} is a {type(model).__name__}, not for {format_name}")
    tensors = engine.dump(family.entries(model.network.config), model.network)
    files.write(output, tensors, family.STATE_DICT_KEYS[0])
    log.info("wrote %s", output)


def _family(name: str) -> ModuleType:
    if name not in formats():
        raise InputError(f"--format={name}: expected one of {', '.join(formats())}")
    return formats()[name]


def _wrapper(family: ModuleType) -> type:
    from maskgil_jax import api

    return {"tokenizer": api.Tokenizer, "generator": api.Generator}[family.KIND]


def parse_arguments(pairs: list[str]) -> dict[str, Any]:
    """`["heads=4", "grid=16x16"]` as a dict.

    Raises:
      InputError: not NAME=NUMBER or NAME=HxW.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            numbers = tuple(int(part) for part in value.split("x"))
        except ValueError:
            raise InputError(f"--arg={pair}: expected NAME=NUMBER or NAME=HxW") from None
        arguments[name] = numbers if "x" in value else numbers[0]
    return arguments


def main(direction: str) -> None:
    """Parse the flags and convert."""
    values = flags.FLAGS
    format_name, source, output = (command.required(n) for n in ("format", "source", "output"))
    if direction == "import":
        import_model(format_name, source, output, parse_arguments(values.arg))
    else:
        export_model(format_name, source, output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("format", None, "llamagen-vq or maskgil-gpt")
    flags.DEFINE_string("source", None, "file to import, or model directory to export")
    flags.DEFINE_string("output", None, "model directory to write, or file")
    flags.DEFINE_multi_string("arg", [], "NAME=VALUE that the tensors do not tell, as heads=4")


if __name__ == "__main__":
    define_flags()
    command.run(main, verbs=("import", "export"))

"""Exchange weights with PyTorch and Flax.

python -m maskgil_jax.convert import --format=NAME --source=FILE --output=DIR [--arg=heads=4]
python -m maskgil_jax.convert export --format=NAME --source=DIR --output=FILE.safetensors
"""

import logging
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

from absl import flags

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

if TYPE_CHECKING:
    from maskgil_jax.interop import files

log = logging.getLogger("maskgil_jax")


def formats() -> dict[str, ModuleType]:
    """The foreign formats by name."""
    from maskgil_jax.interop import (
        fid_inception,
        gemma,
        halton_maskgit,
        llamagen_discriminator,
        llamagen_gpt,
        llamagen_vq,
        lpips,
        maskgil,
        maskgil_gpt,
        maskgit,
        maskgit_pytorch,
        maskgit_vq,
        open_magvit2,
        taming_vqgan,
        whisper,
        whisper_ctranslate2,
    )

    return {
        "llamagen-vq": llamagen_vq,
        "taming-vqgan": taming_vqgan,
        "chameleon-vq": taming_vqgan,
        "open-magvit2": open_magvit2,
        "maskgit-vq": maskgit_vq,
        "maskgil-gpt": maskgil_gpt,
        "maskgil": maskgil,
        "llamagen-gpt": llamagen_gpt,
        "maskgit-pytorch": maskgit_pytorch,
        "halton-maskgit": halton_maskgit,
        "maskgit": maskgit,
        "llamagen-discriminator": llamagen_discriminator,
        "lpips": lpips,
        "fid-inception": fid_inception,
        "gemma": gemma,
        "whisper": whisper,
        "whisper-ctranslate2": whisper_ctranslate2,
    }


def import_model(
    format_name: str,
    source: str,
    output: str,
    arguments: dict[str, Any],
    allow_nonfinite: bool = False,
) -> None:
    """Foreign checkpoint to model directory.

    Args:
      format_name: a key of `formats`.
      source: .safetensors, .pt, .pth, .ckpt, .bin or .msgpack; several with commas in between, a
        directory of them, or their index; what else a format comes in, its module says.
      output: directory that is not there yet.
      arguments: what the tensors do not tell, such as {"heads": 4}; {"weights": "ema"} chooses
        among the sets of weights that a file holds.
      allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
      InputError: an unreadable file, or tensors that do not fit (all of them listed).
    """
    from etils import epath

    from maskgil_jax.interop import engine, recognition
    from maskgil_jax.pretrained import loading, networks
    from maskgil_jax.pretrained.generators import Generator, make_generator

    if epath.Path(output).exists():
        raise InputError(f"--output={output} exists; choose another directory or remove it")
    family = _family(format_name)
    recognition.check_arguments(format_name, family, arguments)
    told = dict(arguments)
    weights = told.pop("weights", "")
    content = _read(family, source, weights)
    config, kept, tensors = recognition.recognise(
        format_name, family, source, content, told, weights
    )
    log.info("%s", config)
    like = networks.shapes_of(config, f"--source={source}")
    try:
        network = engine.load(
            family.entries(config), tensors, like, family.IGNORED, allow_nonfinite
        )
    except InputError as error:
        raise InputError(f"--source={source}: {error}") from None
    model = loading.wrap(network, content.beside)
    if isinstance(model, Generator):
        model = make_generator(network, **kept)
    model.save(output)
    log.info("wrote %s", output)


def _read(family: ModuleType, source: str, weights: str) -> "files.Content":
    """What a source holds; formats that are more than tensors read it themselves."""
    from maskgil_jax.interop import files, names

    if not hasattr(family, "read"):
        return files.read(source, family, weights)
    content: files.Content = family.read(source)
    names.check_holds(source, content.tensors, weights)
    return content


def export_model(format_name: str, source: str, output: str) -> None:
    """Model directory to a file that the official class loads with `strict=True`.

    Raises:
      InputError: a model that the format cannot express.
    """
    from maskgil_jax.interop import description, engine, files, recognition
    from maskgil_jax.pretrained import loading

    family, model = _family(format_name), loading.load(source)
    if not hasattr(family, "STATE_DICT_KEYS"):
        raise InputError(f"--format={format_name} is imported only")
    config = model.network.config
    if not isinstance(config, family.CONFIG):
        found, expected = (c.__name__.removesuffix("Config") for c in (type(config), family.CONFIG))
        raise InputError(f"--source={source} is a {found}, {format_name} holds a {expected}")
    tensors = engine.dump(family.entries(config), model.network)
    beside = family.metadata(config) if hasattr(family, "metadata") else {}
    beside |= {description.KEY: description.of(model)}
    files.write(output, tensors, family.STATE_DICT_KEYS, beside)
    log.info("wrote %s", output)
    untold = recognition.arguments_of(family, config).values()
    if untold and not files.holds_strings(output, family.STATE_DICT_KEYS):
        log.info("it cannot hold what its import has to be told: %s", " ".join(untold))


def _family(name: str) -> ModuleType:
    if name not in formats():
        raise InputError(f"--format={name}: expected one of {', '.join(formats())}")
    return formats()[name]


def parse_arguments(pairs: list[str]) -> dict[str, Any]:
    """`["heads=4", "grid=16x16", "weights=ema"]` as a dict.

    Raises:
      InputError: not NAME=NUMBER, NAME=HxW or NAME=WORD, or one name twice.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in arguments:
            raise InputError(f"--arg={pair}: {name} is given twice")
        if re.fullmatch(r"-?\d+|\d+x\d+", value):
            numbers = tuple(int(part) for part in value.split("x"))
            arguments[name] = numbers if "x" in value else numbers[0]
        elif name and re.fullmatch(r"[A-Za-z_][\w./-]*", value):
            arguments[name] = value
        else:
            raise InputError(f"--arg={pair}: expected NAME=NUMBER, NAME=HxW or NAME=WORD")
    return arguments


def main(direction: str) -> None:
    """Parse the flags and convert."""
    values = flags.FLAGS
    format_name, source, output = (command.required(n) for n in ("format", "source", "output"))
    if direction == "import":
        arguments = parse_arguments(values.arg)
        import_model(format_name, source, output, arguments, values.allow_nonfinite)
    else:
        export_model(format_name, source, output)


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

"""Exchange weights with PyTorch and Flax.

python -m maskgil_jax.convert import --format=NAME --source=FILE --output=DIR [--arg=heads=4]
python -m maskgil_jax.convert export --format=NAME --source=DIR --output=FILE.safetensors
"""

import dataclasses
import inspect
import logging
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from absl import flags

from maskgil_jax import command
from maskgil_jax.errors import InputError

if TYPE_CHECKING:
    from maskgil_jax.interop import files

log = logging.getLogger("maskgil_jax")

FIELDS = {"classes": "num_classes"}  # of configs, where --arg has another name
LAYERS = ("layers", "encoder_layers", "decoder_layers")  # of configs and settings
VALUES = {int: "a number", tuple: "HxW, as 16x16", str: "a word"}


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
    import jax
    from etils import epath

    from maskgil_jax import api, networks
    from maskgil_jax.generators import Generator, generator
    from maskgil_jax.interop import engine

    if epath.Path(output).exists():
        raise InputError(f"--output={output} exists; choose another directory or remove it")
    family = _family(format_name)
    arguments = _checked_arguments(format_name, family, arguments)
    weights = arguments.pop("weights", "")
    content = _read(family, source, weights)
    config, kept, tensors = _fitted(format_name, family, source, content, arguments, weights)
    log.info("%s", config)
    like = jax.eval_shape(lambda: networks.init_network(config, jax.random.key(0)))
    try:
        network = engine.load(
            family.entries(config), tensors, like, family.IGNORED, allow_nonfinite
        )
    except InputError as error:
        raise InputError(f"--source={source}: {error}") from None
    model = api.wrap(network, content.beside)
    if isinstance(model, Generator):
        model = generator(network, **kept)
    model.save(output)
    log.info("wrote %s", output)


def _checked_arguments(
    format_name: str, family: ModuleType, arguments: dict[str, Any]
) -> dict[str, Any]:
    """A copy of them; InputError for a name or a kind of value that the format does not take."""
    taken = _taken(family)
    known = sorted([*taken, "weights"])
    for name, value in arguments.items():
        if name not in known:
            raise InputError(f"--arg: unknown {name!r}, {format_name} takes {', '.join(known)}")
        expected: Any = type(taken.get(name, ""))
        if not isinstance(value, expected):
            raise InputError(f"--arg={name}: {value!r}, expected {VALUES[expected]}")
        if expected is int and value < 1 and name != "layer":
            raise InputError(f"--arg={name}: {value}, expected 1 or more")
    return dict(arguments)


def _taken(family: ModuleType) -> dict[str, Any]:
    """Names and defaults of what a format can be told by --arg beside the weights to take."""
    parameters = inspect.signature(family.config).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("tensors", "metadata")
    }


def _fitted(
    format_name: str,
    family: ModuleType,
    source: str,
    content: "files.Content",
    arguments: dict[str, Any],
    weights: str,
) -> tuple[Any, dict[str, Any], "files.Tensors"]:
    """The network's config, what is known of it beside, and its tensors by the format's names."""
    from maskgil_jax.interop import description, engine, names

    def fit(tensors: "files.Tensors") -> tuple[Any, dict[str, Any], "files.Tensors"]:
        told = description.read(content.metadata, family.CONFIG, len(content.tensors))
        if told:
            fields = {FIELDS.get(name, name): value for name, value in arguments.items()}
            config = _made(format_name, lambda: dataclasses.replace(told.config, **fields))
        else:
            config = _made(
                format_name, lambda: _untold(family, tensors, content.metadata, arguments)
            )
        entries = _made(format_name, lambda: family.entries(config))
        if problems := engine.misfits(entries, tensors, family.IGNORED):
            raise InputError(
                f"is not {format_name}, the tensors do not fit:\n  " + "\n  ".join(problems)
            )
        return config, told.kept if told else {}, tensors

    config, kept, tensors = names.fitting(source, content.tensors, family.ANCHORS, weights, fit)
    _check_layers(source, config, content.metadata)
    if description.KEY not in content.metadata:
        _log_assumed(family, source, config, {**content.metadata, **arguments})
    return config, kept, tensors


def _untold(
    family: ModuleType,
    tensors: "files.Tensors",
    metadata: Mapping[str, Any],
    arguments: dict[str, Any],
) -> Any:
    """The config of a network that was not written by this package."""
    taken = _taken(family)
    told = {name: x for name, x in metadata.items() if name in taken and isinstance(x, int)}
    more = inspect.signature(family.config).parameters
    beside = {"metadata": metadata} if "metadata" in more else {}
    return family.config(tensors, **beside, **(told | arguments))


def _made(format_name: str, make: Callable[[], Any]) -> Any:
    """What `make` makes; an InputError says why there is none, as a verb for a source."""
    try:
        return make()
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"is not {format_name}: it has no {error}") from None
    except (TypeError, ValueError, ArithmeticError, IndexError, AttributeError) as error:
        raise InputError(f"as {format_name}: {error}") from None


def _check_layers(source: str, config: Any, metadata: Mapping[str, Any]) -> None:
    """Raise InputError where a network has other layers than its settings say."""
    for name in LAYERS:
        told, found = metadata.get(name), getattr(config, name, None)
        if isinstance(told, int) and found is not None and told != found:
            raise InputError(
                f"--source={source} has tensors of {found} {name.replace('_', ' ')}, but its "
                f"settings say {told}: a part of it is missing"
            )


def _log_assumed(family: ModuleType, source: str, config: Any, told: Mapping[str, Any]) -> None:
    """Say what neither the tensors tell nor anybody said, and how to say otherwise."""
    assumed = []
    for name in _taken(family):
        if name not in told:
            value = getattr(config, FIELDS.get(name, name))
            shown = "x".join(map(str, value)) if isinstance(value, tuple) else value
            assumed.append(f"--arg={name}={shown}")
    if assumed:
        log.info(
            "%s: its tensors do not tell all; assumed %s, give another value where that is wrong",
            source,
            " ".join(assumed),
        )


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
    from maskgil_jax import api
    from maskgil_jax.interop import description, engine, files

    family, model = _family(format_name), api.load(source)
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
    if not files.holds_strings(output, family.STATE_DICT_KEYS):
        _log_assumed(family, f"{output} (to be imported again)", config, {})


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

"""Foreign checkpoint to model directory and back: the table of formats, and both directions."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from etils import epath

from maskgil_jax.interop import (
    clip,
    description,
    diffusers_vq,
    engine,
    fid_inception,
    files,
    gemma,
    halton_maskgit,
    llamagen_discriminator,
    llamagen_gpt,
    llamagen_vq,
    lpips,
    lumina_dimoo,
    lumina_mgpt,
    maskgil,
    maskgil_gpt,
    maskgit,
    maskgit_pytorch,
    maskgit_vq,
    names,
    open_magvit2,
    recognition,
    stablehlo,
    taming_vqgan,
    torch_folder,
    whisper,
    whisper_ctranslate2,
)
from maskgil_jax.pretrained import loading, networks
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

# The module of a format: its table of tensors (`entries`), how a config is read off them
# (`config`), and what its files are like (README.md, "A new format").
FORMATS: dict[str, ModuleType] = {
    "llamagen-vq": llamagen_vq,
    "taming-vqgan": taming_vqgan,
    "chameleon-vq": taming_vqgan,
    "open-magvit2": open_magvit2,
    "maskgit-vq": maskgit_vq,
    "diffusers-vq": diffusers_vq,
    "maskgil-gpt": maskgil_gpt,
    "maskgil": maskgil,
    "llamagen-gpt": llamagen_gpt,
    "maskgit-pytorch": maskgit_pytorch,
    "halton-maskgit": halton_maskgit,
    "maskgit": maskgit,
    "llamagen-discriminator": llamagen_discriminator,
    "lpips": lpips,
    "fid-inception": fid_inception,
    "lumina-mgpt": lumina_mgpt,
    "lumina-dimoo": lumina_dimoo,
    "gemma": gemma,
    "whisper": whisper,
    "whisper-ctranslate2": whisper_ctranslate2,
    "clip": clip,
}

# What writes a folder that draws images by itself: (source, output, arguments, tokenizer).
FOLDERS: dict[str, Callable[[str, str, Mapping[str, Any], str], None]] = {
    "maskgil": torch_folder.write,
    "stablehlo": stablehlo.write,
}


def import_model(
    format_name: str,
    source: str,
    output: str,
    arguments: dict[str, Any],
    allow_nonfinite: bool = False,
) -> None:
    """Write a foreign checkpoint as a model directory.

    Args:
      format_name: a key of FORMATS.
      source: .safetensors, .pt, .pth, .ckpt, .bin or .msgpack; several with commas in between, a
        directory of them, or their index; what else a format comes in, its module says.
      output: directory that is not there yet.
      arguments: settings that the tensors do not show, such as {"heads": 4}; {"weights": "ema"}
        chooses among the sets of weights that a file holds; {"tokenizer": DIR} is the tokenizer of
        the codes, where a format takes one.
      allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
      InputError: an unreadable file, or tensors that do not fit (all of them listed).
    """
    if epath.Path(output).exists():
        raise InputError(f"output={output} exists; choose another directory or remove it")
    family = _family(format_name)
    recognition.check_arguments(format_name, family, arguments)
    settings = dict(arguments)
    weights = settings.pop("weights", "")
    provenance = {
        name: loading.load_tokenizer(settings.pop(name)).provenance
        for name in recognition.companions(family)
        if name in settings
    }
    content = _read(family, source, weights)
    recognised = recognition.recognise(format_name, family, source, content, settings, weights)
    _check_codes(format_name, arguments, provenance, recognised.config)
    log.info("%s", recognised.config)
    like = networks.shapes_of(recognised.config, f"source={source}")
    try:
        network = engine.load(
            family.entries(recognised.config),
            recognised.tensors,
            like,
            family.IGNORED,
            allow_nonfinite,
        )
    except InputError as error:
        raise InputError(f"source={source}: {error}") from None
    provenance = dict(recognised.provenance) | provenance
    loading.wrap(network, content.beside, provenance).save(output)
    log.info("wrote %s", output)


def _check_codes(
    format_name: str, arguments: Mapping[str, Any], provenance: Mapping[str, Any], config: Any
) -> None:
    """Raise InputError where a tokenizer that was given makes other codes than a model's."""
    if "tokenizer" not in provenance:
        return
    codes = provenance["tokenizer"]["codebook_size"]
    if codes != config.codebook_size:
        raise InputError(
            f"tokenizer={arguments['tokenizer']} has {codes} codes, but {format_name} has "
            f"{config.codebook_size}"
        )


def _read(family: ModuleType, source: str, weights: str) -> files.Content:
    """What a source holds; formats that are more than tensors read it themselves."""
    if not hasattr(family, "read"):
        return files.read(source, family, weights)
    content: files.Content = family.read(source)
    names.check_holds(source, content.tensors, weights)
    return content


def export_model(
    format_name: str,
    source: str,
    output: str,
    arguments: Mapping[str, Any] | None = None,
    tokenizer: str = "",
) -> None:
    """Write a model directory as a file that the official class loads with `strict=True`.

    Format stablehlo, and format maskgil where the output has no suffix or ends with "/", write a
    folder that draws images by itself; `arguments` are of these, and so is `tokenizer`, a directory
    (by default the generator's own).

    Raises:
      InputError: a model that the format cannot express, or arguments that it does not take.
    """
    is_folder = output.endswith("/") or not epath.Path(output).suffix
    if format_name in FOLDERS and (is_folder or format_name not in FORMATS):
        FOLDERS[format_name](source, output, arguments or {}, tokenizer)
        return
    if arguments:
        name, value = next(iter(arguments.items()))
        raise InputError(f"arg={name}={value} is of imports, and of exports to a folder")
    if tokenizer:
        raise InputError(f"tokenizer={tokenizer} is of bundles, and of exports to a folder")
    family, model = _family(format_name), loading.load(source)
    if not hasattr(family, "STATE_DICT_KEYS"):
        raise InputError(f"format={format_name} can only be imported")
    config = model.network.config
    engine.check_kind(format_name, source, config, family.CONFIG)
    tensors = engine.dump(family.entries(config), model.network)
    beside = family.metadata(config) if hasattr(family, "metadata") else {}
    beside |= {description.KEY: description.of(model)}
    files.write(output, tensors, family.STATE_DICT_KEYS, beside)
    log.info("wrote %s", output)
    needed = recognition.arguments_of(family, config).values()
    if needed and not files.holds_strings(output, family.STATE_DICT_KEYS):
        log.info(
            "it has no room for settings; to import it again, give %s",
            " ".join(needed),
        )


def _family(name: str) -> ModuleType:
    if name not in FORMATS and name in FOLDERS:
        raise InputError(f"format={name} can only be exported")
    if name not in FORMATS:
        known = ", ".join({**FORMATS, **FOLDERS})
        raise InputError(f"format={name}: expected one of {known}")
    return FORMATS[name]


def parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """`["heads=4", "grid=16x16", "weights=ema"]` as a dict of an int, a tuple and a string.

    Several words or numbers with commas in between are one string.

    Raises:
      InputError: not NAME=NUMBER, NAME=HxW or NAME=WORD, or one name twice.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in arguments:
            raise InputError(f"arg={pair}: {name} is given twice")
        if re.fullmatch(r"-?\d+|\d+x\d+", value):
            numbers = tuple(int(number) for number in value.split("x"))
            arguments[name] = numbers if "x" in value else numbers[0]
        elif name and re.fullmatch(r"-?\d+\.\d*(e-?\d+)?", value):
            arguments[name] = float(value)
        elif name and re.fullmatch(r"[A-Za-z_./][\w./,-]*|\d+(,\d+)+", value):
            arguments[name] = value
        else:
            raise InputError(f"arg={pair}: expected NAME=NUMBER, NAME=HxW or NAME=WORD")
    return arguments

"""A generator and its tokenizer as a folder for PyTorch: weights, source, and an example.

`python example.py`, in the folder, draws a PNG with torch and safetensors alone.
"""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from maskgil_jax.decoding import masked_options
from maskgil_jax.interop import (
    decoding_arguments,
    description,
    engine,
    export_folder,
    files,
    maskgil,
    maskgil_decoder,
)
from maskgil_jax.interop.decoding_arguments import Decoding
from maskgil_jax.pretrained import loading
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError

# Options of masked decoding, and rules, that maskgil_torch does not have.
ONLY_HERE = (
    *("guidance_from", "guidance_to", "entropy_budget", "remask"),
    *("cache_ratio", "cache_warmup", "cache_refresh", "random_start"),
)
RULES_ONLY_HERE = ("dimoo", "moment", "choose", "entropy")
SOURCE = pathlib.Path(__file__).parent / "maskgil_torch"

EXAMPLE = '''"""Draws {what} as example.png: cd here, and python example.py"""

{imports}import torch

import maskgil_torch

generator = maskgil_torch.load("generator.safetensors")
tokenizer = maskgil_torch.load_tokenizer("tokenizer.safetensors")
{condition}
codes = maskgil_torch.sample(generator, condition, seed=0{options})  # [B, h, w]
images = tokenizer.images(codes)  # uint8 [B, H, W, 3]
maskgil_torch.write_png("example.png", torch.cat([*images], dim=1))
'''
CLASSES = "condition = torch.arange(4) % {classes}  # class ids [B]{names}"
NOTHING = "condition = torch.zeros(4, dtype=torch.int64)  # the model is unconditional"
FEATURES = """given = safetensors.torch.load_file("features.safetensors")  # of its encoder
condition = given["features"], given["mask"]  # [B, {tokens}, {width}]; bool [B, {tokens}]"""


def write(source: str, output: str, arguments: Mapping[str, Any], tokenizer: str = "") -> None:
    """Write the folder.

    Args:
      source: directory of a generator.
      output: directory that is not there yet.
      arguments: decoding options of the example, see decoding_arguments.read.
      tokenizer: its directory; "": the generator's own.

    Raises:
      InputError: a model that maskgil_torch does not have, one without its tokenizer, arguments
        that it cannot be drawn with, or an output that cannot be written.
    """
    described = loading.generator_without_weights(source)
    engine.check_kind("maskgil", source, described.network.config, maskgil.CONFIG)
    table = maskgil.entries(described.network.config)
    decoding = in_torch(decoding_arguments.read(described, arguments))
    with export_folder.written(output) as folder:
        generator, decoder = loading.load_pair(source, tokenizer)
        files.write(
            str(folder / "generator.safetensors"),
            engine.dump(table, generator.network),
            maskgil.STATE_DICT_KEYS,
            maskgil.metadata(generator.network.config)
            | {description.KEY: description.of(generator)},
        )
        files.write(
            str(folder / "tokenizer.safetensors"),
            engine.dump(maskgil_decoder.entries(decoder.network), decoder.network),
            maskgil.STATE_DICT_KEYS,
            maskgil_decoder.metadata(decoder.network.config),
        )
        (folder / SOURCE.name).mkdir()
        for path in sorted(SOURCE.glob("*.py")):
            shutil.copy(path, folder / SOURCE.name)
        (folder / "example.py").write_text(example(generator, decoding.in_words(generator)))


def in_torch(decoding: Decoding) -> Decoding:
    """The same decoding as maskgil_torch takes it.

    Raises:
      InputError: it has an option that is not there.
    """
    defaults = masked_options.Options()
    asked = {
        name: value
        for name, value in decoding.options.items()
        if name in ONLY_HERE and value != getattr(defaults, name)
    }
    if (rule := decoding.options.get("rule")) in RULES_ONLY_HERE:
        asked["rule"] = rule
    if asked:
        name, value = next(iter(asked.items()))
        raise InputError(
            f"arg={name}={value}: the PyTorch source of the folder does not decode so, expected "
            "another rule and options"
        )
    known = {name: value for name, value in decoding.options.items() if name not in ONLY_HERE}
    return decoding._replace(options=known)


def example(generator: Generator, options: Mapping[str, Any]) -> str:
    """The text of example.py."""
    config = generator.network.config
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    what, condition, imports = "four images of classes", CLASSES, ""
    if config.feature_dim:
        what, condition, imports = "images of features", FEATURES, "import safetensors.torch\n"
    elif not config.num_classes:
        what, condition = "four images", NOTHING
    names = ", ".join(generator.class_names[:4])
    return EXAMPLE.format(
        what=what,
        imports=imports,
        options=given,
        condition=condition.format(
            classes=config.num_classes,
            names=f": {names}" if names else "",
            tokens=config.condition_tokens,
            width=config.feature_dim,
        ),
    )

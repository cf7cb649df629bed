"""What the LLaMAs of text and images that others release have in common: snapshots and layers.

A snapshot is a directory of safetensors with their config.json, as Hugging Face's. Rotations are
half-split: pair p of a head's channels is p and p + K / 2 there, 2 p and 2 p + 1 in ours.
"""

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax.numpy as jnp

from maskgil_jax.interop import description, files, sources
from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.interop.files import Content
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.pretrained.prompts import VOCABULARY
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, check_object

log = logging.getLogger("maskgil_jax")

SETTINGS = "config.json"


def read(
    source: str,
    family: ModuleType,
    settings_of: Callable[[str], dict[str, Any]],
    check_vocabulary: Callable[[bytes], object],
    advice: str,
) -> Content:
    """Tensors, settings by config.json's names, and tokenizer.json where it lies there.

    Args:
      source: a directory, its index, or files with commas in between.
      family: module of the format.
      settings_of: reads a config.json.
      check_vocabulary: refuses the content of another model's tokenizer.json.
      advice: what to do where there is none.

    Raises:
      InputError: an unreadable or missing file, or as the two functions.
    """
    source = sources.snapshot(source)
    paths = sources.members(source)
    settings_path, vocabulary_path = paths.pop(SETTINGS, ""), paths.pop(VOCABULARY, "")
    weights = {name: path for name, path in paths.items() if ".safetensors" in name}
    if not weights:
        raise InputError(
            f"source={source}: expected .safetensors and {SETTINGS}, or a directory of them"
        )
    settings = settings_of(settings_path) if settings_path else {}
    beside = {VOCABULARY: sources.read_bytes(vocabulary_path)} if vocabulary_path else {}
    for data in beside.values():
        check_vocabulary(data)
    content = files.read_weights(sources.weights_among(weights, source), family)
    if not settings_path and description.KEY not in content.metadata:
        raise InputError(f"source={source} has no {SETTINGS}, which says what tensors do not show")
    if not beside:
        log.warning(
            "%s has no %s: prompts have to be arrays of ids. %s", source, VOCABULARY, advice
        )
    return Content(content.tensors, {**content.metadata, **settings}, beside)


def read_settings(
    path: str, fixed: Mapping[str, Any], numbers: Mapping[str, Types], name: str
) -> dict[str, Any]:
    """The settings in a config.json, without those that are null.

    Args:
      path: of the file.
      fixed: settings that have one value in all published models.
      numbers: types of those that are used.
      name: of the model in messages.

    Raises:
      InputError: they are of another network.
    """
    settings = sources.read_json(path)
    for setting, value in fixed.items():
        if settings.get(setting, value) != value:
            raise InputError(
                f"source={path} has {setting} = {settings[setting]!r}, expected {value!r}: {name}'s"
            )
    settings = {setting: value for setting, value in settings.items() if value is not None}
    check_object(settings, {n: numbers[n] for n in numbers if n in settings}, f"source={path}")
    return settings


def check_setting(settings: Mapping[str, Any], name: str, count: int) -> None:
    """Raise ValueError where the tensors have another number of something than the settings."""
    if settings.get(name, count) != count:
        raise ValueError(f"the tensors have {name} = {count}, but its settings {settings[name]}")


def dtype_of(tensors: Tensors) -> str:
    """The type to compute in: bfloat16 where all is released so."""
    released = all(x.dtype == jnp.bfloat16 for x in tensors.values())
    return "bfloat16" if released else "float32"


def layer(config: LlamaConfig, names: Mapping[str, str], i: int) -> list[Entry]:
    """The table of one layer.

    Args:
      config: of the network.
      names: foreign ones, of which `{i}` is the layer: "q", "k", "v", "out", "gate", "up", "down",
        "attention_norm", "mlp_norm", and "query_norm" and "key_norm" without what is behind the
        last dot.
      i: the layer.
    """
    D, H, G, K, F = config.dim, config.heads, config.key_heads, config.head_dim, config.ffn_dim
    every = slice(None)
    theirs = {name: pattern.format(i=i) for name, pattern in names.items()}
    places: dict[str, tuple[str, tuple[Any, ...]]]
    if H == G:
        places = {name: ("blocks/qkv", (i, every, slot)) for slot, name in enumerate("qkv")}
    else:
        places = {name: ("blocks/key_value", (i, every, slot)) for slot, name in enumerate("kv")}
        places["q"] = ("blocks/query", (i,))

    def projection(name: str, heads: int) -> Entry:
        path, slot = places[name]
        halves = 1 if name == "v" else 2  # values are not rotated
        return Entry(
            theirs[name],
            (heads * K, D),
            path,
            split=(heads, halves, K // halves, D),
            axes=(3, 0, 2, 1),
            slot=slot,
            joined=(D, heads, K),
        )

    def matrix(name: str, shape: tuple[int, int], path: str, slot: tuple[Any, ...]) -> Entry:
        return Entry(theirs[name], shape, path, axes=(1, 0), slot=slot)

    post = "post_" if config.post_norm == "output" else ""
    out = Entry(theirs["out"], (D, H * K), "blocks/out", split=(D, H, K), axes=(1, 2, 0), slot=(i,))
    return [
        *(projection(name, heads) for name, heads in (("q", H), ("k", G), ("v", G))),
        out,
        *_norms_of_heads(config, theirs, i),
        matrix("gate", (F, D), "blocks/gate_up", (i, every, 0)),
        matrix("up", (F, D), "blocks/gate_up", (i, every, 1)),
        matrix("down", (D, F), "blocks/down", (i,)),
        Entry(theirs["attention_norm"], (D,), f"blocks/attention_{post}norm/scale", slot=(i,)),
        Entry(theirs["mlp_norm"], (D,), f"blocks/mlp_{post}norm/scale", slot=(i,)),
    ]


def _norms_of_heads(config: LlamaConfig, theirs: Mapping[str, str], i: int) -> list[Entry]:
    K = config.head_dim
    return [
        Entry(
            f"{theirs[name]}.{foreign}",
            (rows, K),
            f"blocks/{name}/{ours}",
            split=(rows, 2, K // 2),
            axes=(0, 2, 1),
            slot=(i,),
            joined=(rows, K),
        )
        for name, rows in zip(("query_norm", "key_norm"), config.qk_norm_rows, strict=False)
        for foreign, ours in (("weight", "scale"), ("bias", "bias"))
    ]

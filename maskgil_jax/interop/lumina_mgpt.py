"""Lumina-mGPT and Chameleon, of Hugging Face: snapshots of safetensors with their config.json.

Half-split rotations: pair p of a head's channels is p and p + K / 2 there, 2 p and 2 p + 1 in ours.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from maskgil_jax.interop import description, files, sources
from maskgil_jax.interop.engine import Entry, Tensors, check_same, count_layers
from maskgil_jax.interop.files import Content
from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.models.token_models.llama_config import CHAMELEON, LlamaConfig
from maskgil_jax.pretrained.prompts import ADVICE, VOCABULARY, PromptVocabulary
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, check_object

log = logging.getLogger("maskgil_jax")

CONFIG = LlamaConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("model.embed_tokens.weight",)
IGNORED = (r"^model\.vqmodel\.",)
COMPANIONS = ("tokenizer",)  # model directories that are given beside the source

SETTINGS = "config.json"
NUMBERS: dict[str, Types] = dict(
    num_hidden_layers=int,
    num_attention_heads=int,
    rms_norm_eps=float,
    rope_theta=float,
    swin_norm=bool,
    max_position_embeddings=int,
    vocabulary_map=dict,
)
# Settings that have one value in all published models.
FIXED = dict(
    model_type="chameleon",
    hidden_act="silu",
    rope_scaling=None,
    attention_bias=False,
    mlp_bias=False,
    tie_word_embeddings=False,
)


def read(source: str) -> Content:
    """Tensors, settings by config.json's names, and tokenizer.json where it lies there.

    Raises:
      InputError: an unreadable or missing file, another network, or other ids than Lumina-mGPT's.
    """
    source = sources.snapshot(source)
    paths = sources.members(source)
    settings_path, vocabulary_path = paths.pop(SETTINGS, ""), paths.pop(VOCABULARY, "")
    weights = {name: path for name, path in paths.items() if ".safetensors" in name}
    if not weights:
        raise InputError(
            f"source={source}: expected .safetensors and {SETTINGS}, or a directory of them"
        )
    settings = _settings(settings_path) if settings_path else {}
    beside = {VOCABULARY: sources.read_bytes(vocabulary_path)} if vocabulary_path else {}
    for data in beside.values():
        PromptVocabulary(data)
    content = files.read_weights(sources.weights_among(weights, source), sys.modules[__name__])
    if not settings_path and description.KEY not in content.metadata:
        raise InputError(f"source={source} has no {SETTINGS}, which says what tensors do not show")
    if not beside:
        log.warning(
            "%s has no %s: prompts have to be arrays of ids. %s", source, VOCABULARY, ADVICE
        )
    if settings.get("mask_image_logits"):
        log.warning("%s: mask_image_logits is set, which is not done here", settings_path)
    _say_what_cannot_draw(source, content.tensors)
    return Content(content.tensors, {**content.metadata, **settings}, beside)


def config(
    tensors: Tensors, metadata: dict[str, Any], grid: tuple[int, int] = (32, 32)
) -> LlamaConfig:
    """The network, read off the shapes, with what config.json says beside.

    `grid` is that of the pixels that the model was tuned on: (32, 32) for 512, (48, 48) for 768.
    """
    layer = "model.layers.0"
    rows = {name: tensors[f"{layer}.self_attn.{name}_proj.weight"].shape[0] for name in "qk"}
    norms = [tensors[f"{layer}.self_attn.{name}_norm.weight"].shape for name in "qk"]
    vocabulary, dim = tensors["model.embed_tokens.weight"].shape
    head_dim = norms[0][1]
    heads, kv_heads = (rows[name] // head_dim for name in "qk")
    _check_setting(metadata, "num_attention_heads", heads)
    ours = [x for name, x in tensors.items() if not re.match(IGNORED[0], name)]
    released = all(x.dtype == jnp.bfloat16 for x in ours)
    dtype = "bfloat16" if released else "float32"
    return LlamaConfig(
        **CHAMELEON | dict(post_norm="output" if metadata.get("swin_norm") else "none"),
        layers=count_layers(tensors, "model.layers."),
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=vocabulary,
        context=metadata.get("max_position_embeddings", 4096),
        mlp_dim=tensors[f"{layer}.mlp.gate_proj.weight"].shape[0],
        qk_norm_rows=tuple(shape[0] for shape in norms),
        norm_eps=metadata.get("rms_norm_eps", 1e-5),
        rope_base=metadata.get("rope_theta", 10000.0),
        grid=grid,
        dtype=dtype,
        param_dtype=dtype,
    )


def entries(config: LlamaConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network that is no Chameleon.
    """
    if not config.vocabulary:
        check_same("lumina-mgpt", config, CHAMELEON)
        raise InputError("lumina-mgpt has a vocabulary of text, but this model has none")
    V, D = config.vocabulary, config.dim
    return [
        Entry("model.embed_tokens.weight", (V, D), "code_embedding"),
        *(entry for i in range(config.layers) for entry in _layer(config, i)),
        Entry("model.norm.weight", (D,), "norm/scale"),
        Entry("lm_head.weight", (V, D), "head", axes=(1, 0)),
    ]


def _layer(config: LlamaConfig, i: int) -> list[Entry]:
    D, H, G, K, F = config.dim, config.heads, config.key_heads, config.head_dim, config.ffn_dim
    layer, every = f"model.layers.{i}", slice(None)
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
            f"{layer}.self_attn.{name}_proj.weight",
            (heads * K, D),
            path,
            split=(heads, halves, K // halves, D),
            axes=(3, 0, 2, 1),
            slot=slot,
            joined=(D, heads, K),
        )

    def norm_of_heads(name: str, path: str, rows: int) -> list[Entry]:
        return [
            Entry(
                f"{layer}.self_attn.{name}_norm.{theirs}",
                (rows, K),
                f"blocks/{path}_norm/{ours}",
                split=(rows, 2, K // 2),
                axes=(0, 2, 1),
                slot=(i,),
                joined=(rows, K),
            )
            for theirs, ours in (("weight", "scale"), ("bias", "bias"))
        ]

    def matrix(name: str, shape: tuple[int, int], path: str, slot: tuple[Any, ...]) -> Entry:
        return Entry(f"{layer}.mlp.{name}_proj.weight", shape, path, axes=(1, 0), slot=slot)

    query_rows, key_rows = config.qk_norm_rows
    post = "post_" if config.post_norm == "output" else ""
    norms = (
        ("input_layernorm", f"attention_{post}norm"),
        ("post_attention_layernorm", f"mlp_{post}norm"),
    )
    return [
        *(projection(name, heads) for name, heads in (("q", H), ("k", G), ("v", G))),
        Entry(
            f"{layer}.self_attn.o_proj.weight",
            (D, H * K),
            "blocks/out",
            split=(D, H, K),
            axes=(1, 2, 0),
            slot=(i,),
        ),
        *norm_of_heads("q", "query", query_rows),
        *norm_of_heads("k", "key", key_rows),
        matrix("gate", (F, D), "blocks/gate_up", (i, every, 0)),
        matrix("up", (F, D), "blocks/gate_up", (i, every, 1)),
        matrix("down", (D, F), "blocks/down", (i,)),
        *(
            Entry(f"{layer}.{theirs}.weight", (D,), f"blocks/{ours}/scale", slot=(i,))
            for theirs, ours in norms
        ),
    ]


def _settings(path: str) -> dict[str, Any]:
    """The settings in config.json; InputError where they are of another network."""
    settings = sources.read_json(path)
    for name, value in FIXED.items():
        if settings.get(name, value) != value:
            raise InputError(
                f"source={path} has {name} = {settings[name]!r}, expected {value!r}: Chameleon's"
            )
    rotations = settings.get("rope_parameters")
    if isinstance(rotations, dict):  # the name since transformers 5
        if rotations.get("rope_type", "default") != "default":
            raise InputError(f"source={path}: rope_parameters = {rotations} is not supported")
        settings["rope_theta"] = rotations.get("rope_theta", settings.get("rope_theta"))
    settings = {name: value for name, value in settings.items() if value is not None}
    check_object(settings, {n: NUMBERS[n] for n in NUMBERS if n in settings}, f"source={path}")
    try:
        lumina_sequence.check_names(settings.pop("vocabulary_map", {}))
    except ValueError as error:
        raise InputError(f"source={path}: vocabulary_map: {error}") from None
    return settings | {"layers": settings.get("num_hidden_layers")}


def _check_setting(settings: Mapping[str, Any], name: str, count: int) -> None:
    """Raise ValueError where the tensors have another number of something than the settings."""
    if settings.get(name, count) != count:
        raise ValueError(f"the tensors have {name} = {count}, but its settings {settings[name]}")


def _say_what_cannot_draw(source: str, tensors: Tensors) -> None:
    head = tensors.get("lm_head.weight", np.zeros((0, 1)))
    rows = head[lumina_sequence.FIRST_CODE :][: lumina_sequence.CODES]
    if len(rows) and not rows.any():
        log.warning(
            "%s: the rows of image codes in lm_head.weight are zero, as in Chameleon as Meta "
            "released it, and in what Lumina-mGPT's training starts from: this model reads images, "
            "and sample refuses to draw with it",
            source,
        )

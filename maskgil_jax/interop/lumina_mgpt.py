"""Lumina-mGPT and Chameleon, of Hugging Face: snapshots of safetensors with their config.json."""

import logging
import re
import sys
from typing import Any

import numpy as np

from maskgil_jax.interop import text_llama
from maskgil_jax.interop.engine import Entry, Tensors, check_same, count_layers
from maskgil_jax.interop.files import Content
from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.models.token_models.llama_config import CHAMELEON, LlamaConfig
from maskgil_jax.pretrained.prompts import ADVICE, PromptVocabulary
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, check_object

log = logging.getLogger("maskgil_jax")

CONFIG = LlamaConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("model.embed_tokens.weight",)
IGNORED = (r"^model\.vqmodel\.",)
COMPANIONS = ("tokenizer",)  # model directories that are given beside the source

LAYER = {
    **{name: f"model.layers.{{i}}.self_attn.{name}_proj.weight" for name in "qkv"},
    "out": "model.layers.{i}.self_attn.o_proj.weight",
    "query_norm": "model.layers.{i}.self_attn.q_norm",
    "key_norm": "model.layers.{i}.self_attn.k_norm",
    **{name: f"model.layers.{{i}}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
    "attention_norm": "model.layers.{i}.input_layernorm.weight",
    "mlp_norm": "model.layers.{i}.post_attention_layernorm.weight",
}
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
    """As text_llama.read.

    Raises:
      InputError: an unreadable or missing file, another network, or other ids than Lumina-mGPT's.
    """
    family = sys.modules[__name__]
    content = text_llama.read(source, family, _settings, PromptVocabulary, ADVICE)
    if content.metadata.get("mask_image_logits"):
        log.warning("%s: mask_image_logits is set, which is not done here", source)
    _say_what_cannot_draw(source, content.tensors)
    return content


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
    text_llama.check_setting(metadata, "num_attention_heads", heads)
    dtype = text_llama.dtype_of(
        {name: x for name, x in tensors.items() if not re.match(IGNORED[0], name)}
    )
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
    check_same("lumina-mgpt", config, CHAMELEON | dict(post_norm=config.post_norm))
    if not config.vocabulary:
        raise InputError("lumina-mgpt has a vocabulary of text, but this model has none")
    V, D = config.vocabulary, config.dim
    return [
        Entry("model.embed_tokens.weight", (V, D), "code_embedding"),
        *(entry for i in range(config.layers) for entry in text_llama.layer(config, LAYER, i)),
        Entry("model.norm.weight", (D,), "norm/scale"),
        Entry("lm_head.weight", (V, D), "head", axes=(1, 0)),
    ]


def _settings(path: str) -> dict[str, Any]:
    """The settings in config.json; InputError where they are of another network."""
    settings = text_llama.read_settings(path, FIXED, NUMBERS, "Chameleon")
    rotations = settings.get("rope_parameters")
    if isinstance(rotations, dict):  # the name since transformers 5
        if rotations.get("rope_type", "default") != "default":
            raise InputError(f"source={path}: rope_parameters = {rotations} is not supported")
        if "rope_theta" in rotations:
            check_object(rotations, {"rope_theta": float}, f"source={path}: rope_parameters")
            settings["rope_theta"] = rotations["rope_theta"]
    try:
        lumina_sequence.check_names(settings.pop("vocabulary_map", {}))
    except ValueError as error:
        raise InputError(f"source={path}: vocabulary_map: {error}") from None
    return settings | {"layers": settings.get("num_hidden_layers")}


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

"""Lumina-DiMOO, a LLaDA: snapshots of safetensors with their config.json.

Source: Alpha-VLLM/Lumina-DiMOO, model/modeling_llada.py.
"""

import sys
from typing import Any

from maskgil_jax.interop import text_llama
from maskgil_jax.interop.engine import Entry, Tensors, check_same, count_layers
from maskgil_jax.interop.files import Content
from maskgil_jax.models.token_models.llama_config import LLADA, LlamaConfig
from maskgil_jax.pretrained.dimoo_prompts import ADVICE, DimooVocabulary
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types

CONFIG = LlamaConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("model.transformer.wte.weight",)
IGNORED = ()
COMPANIONS = ("tokenizer",)  # model directories that are given beside the source

BLOCK = "model.transformer.blocks.{i}."
LAYER = {
    **{name: f"{BLOCK}{name}_proj.weight" for name in ("q", "k", "v", "up")},
    "out": f"{BLOCK}attn_out.weight",
    "gate": f"{BLOCK}ff_proj.weight",
    "down": f"{BLOCK}ff_out.weight",
    "attention_norm": f"{BLOCK}attn_norm.weight",
    "mlp_norm": f"{BLOCK}ff_norm.weight",
}
NUMBERS: dict[str, Types] = dict(
    n_layers=int,
    n_heads=int,
    n_kv_heads=int,
    rms_norm_eps=float,
    rope_theta=float,
    max_sequence_length=int,
)
# Settings that have one value in the published model.
FIXED = dict(
    model_type="llada",
    block_type="llama",
    activation_type="silu",
    layer_norm_type="rms",
    rope=True,
    alibi=False,
    weight_tying=False,
    include_bias=False,
    include_qkv_bias=False,
    bias_for_layer_norm=False,
    attention_layer_norm=False,
    scale_logits=False,
    input_emb_norm=False,
    mask_token_id=126336,
)
NEEDED = ("n_heads", "rope_theta")  # what tensors do not show, and releases differ in


def read(source: str) -> Content:
    """As text_llama.read.

    Raises:
      InputError: an unreadable or missing file, another network, or other ids than Lumina-DiMOO's.
    """
    family = sys.modules[__name__]
    return text_llama.read(source, family, _settings, DimooVocabulary, ADVICE)


def config(
    tensors: Tensors, metadata: dict[str, Any], grid: tuple[int, int] = (64, 64)
) -> LlamaConfig:
    """The network, read off the shapes, with what config.json says beside.

    `grid` is that of the pixels that the model was tuned on: (64, 64) for 1024.
    """
    block = BLOCK.format(i=0)
    vocabulary, dim = tensors["model.transformer.wte.weight"].shape
    heads = metadata["n_heads"]
    head_dim = tensors[f"{block}q_proj.weight"].shape[0] // heads
    kv_heads = tensors[f"{block}k_proj.weight"].shape[0] // head_dim
    text_llama.check_setting(metadata, "n_kv_heads", kv_heads)
    dtype = text_llama.dtype_of(tensors)
    return LlamaConfig(
        **LLADA,
        layers=count_layers(tensors, "model.transformer.blocks."),
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=vocabulary,
        context=metadata.get("max_sequence_length", 4096),
        mlp_dim=tensors[f"{block}ff_proj.weight"].shape[0],
        norm_eps=metadata.get("rms_norm_eps", 1e-5),
        rope_base=metadata["rope_theta"],
        grid=grid,
        dtype=dtype,
        param_dtype=dtype,
    )


def entries(config: LlamaConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network that is no LLaDA.
    """
    check_same("lumina-dimoo", config, LLADA)
    if not config.vocabulary:
        raise InputError("lumina-dimoo has a vocabulary of text, but this model has none")
    V, D = config.vocabulary, config.dim
    return [
        Entry("model.transformer.wte.weight", (V, D), "code_embedding"),
        Entry("model.transformer.ln_f.weight", (D,), "norm/scale"),
        *(entry for i in range(config.layers) for entry in text_llama.layer(config, LAYER, i)),
        Entry("model.transformer.ff_out.weight", (V, D), "head", axes=(1, 0)),
    ]


def _settings(path: str) -> dict[str, Any]:
    """The settings in config.json; InputError where they are of another network."""
    settings = text_llama.read_settings(path, FIXED, NUMBERS, "Lumina-DiMOO")
    if missing := [name for name in NEEDED if name not in settings]:
        raise InputError(f"source={path} has no {missing[0]}, which tensors do not show")
    return settings | {"layers": settings.get("n_layers")}

"""Gemma 1 and the language models of Gemma 3, of Hugging Face or of llama.cpp.

The source is a snapshot's directory (config.json, *.safetensors, tokenizer.model), its files with
commas in between, of which config.json may be left out, or one GGUF file.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from maskgil_jax.interop import files, llama_cpp, sources
from maskgil_jax.interop.engine import Entry, Tensors, count_layers
from maskgil_jax.interop.files import Content
from maskgil_jax.models.encoders.gemma import GemmaConfig
from maskgil_jax.pretrained.text_encoder import VOCABULARY
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import check_object

CONFIG = GemmaConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("model.embed_tokens.weight",)
IGNORED = (r"^lm_head\.weight$",)  # the embedding once more

SETTINGS = "config.json"
MODEL_TYPES = ("gemma", "gemma3_text")
# Settings of the official models that their tensors do not show, by config.json's names.
OFFICIAL: dict[int, dict[str, Any]] = {
    1: dict(head_dim=256, rope_theta=10000.0, rms_norm_eps=1e-6),
    3: dict(
        query_pre_attn_scalar=256,
        rope_theta=1000000.0,
        rope_local_base_freq=10000.0,
        sliding_window=512,
        sliding_window_pattern=6,
        rms_norm_eps=1e-6,
    ),
}
# Settings that have to be numbers where they are given.
NUMBERS = (*OFFICIAL[1], *OFFICIAL[3], "num_hidden_layers", "num_attention_heads")
REFUSED = ("rope_scaling", "attn_logit_softcapping", "use_bidirectional_attention")
# The norm before the MLP.
MLP_NORM = {1: "post_attention_layernorm", 3: "pre_feedforward_layernorm"}

GGUF_ARCHITECTURES = {"gemma": 1, "gemma3": 3}
# llama.cpp's names of settings, after the architecture's, and of tensors.
GGUF_SETTINGS = {
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "rope.scaling.factor": "rope_scaling",
}
GGUF_TENSORS = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def read(source: str) -> Content:
    """Tensors by Hugging Face's names, settings by config.json's, and the vocabulary.

    Raises:
      InputError: an unreadable file, another network, or no vocabulary.
    """
    content = _read_gguf(source) if source.endswith(".gguf") else _read_snapshot(source)
    for name in REFUSED:
        if content.metadata.get(name):
            raise InputError(f"source={source}: {name} = {content.metadata[name]} is not supported")
    return content


def config(
    tensors: Tensors, metadata: dict[str, Any], heads: int = 0, layer: int = -2
) -> GemmaConfig:
    """The network, read off the shapes.

    Settings that these do not show are those of config.json or the GGUF header, or else those of
    the official models. Heads of Gemma 1 without either are 256 wide unless `heads` is given.
    `layer` is the layer whose output the features are, as in GemmaConfig.
    """
    embedding, attention = tensors["model.embed_tokens.weight"], "model.layers.0.self_attn"
    rows = {name: tensors[f"{attention}.{name}_proj.weight"].shape[0] for name in "qk"}
    generation = _generation(tensors)
    settings = OFFICIAL[generation] | metadata
    if generation == 3:
        settings["head_dim"] = tensors[f"{attention}.q_norm.weight"].shape[0]
    head_dim = rows["q"] // heads if heads else settings["head_dim"]
    if any(size % head_dim for size in rows.values()):
        raise ValueError(
            f"{rows['q']} and {rows['k']} rows of queries and keys are no heads of {head_dim}: "
            "give the number of heads of queries by arg=heads=N, or give config.json"
        )
    layers = count_layers(tensors, "model.layers.")
    _check_setting(settings, "num_hidden_layers", layers)
    if not heads:
        _check_setting(settings, "num_attention_heads", rows["q"] // head_dim)
    dtype = "bfloat16" if embedding.dtype == jnp.bfloat16 else "float32"
    return GemmaConfig(
        generation=generation,
        layers=layers,
        dim=embedding.shape[1],
        heads=rows["q"] // head_dim,
        kv_heads=rows["k"] // head_dim,
        head_dim=head_dim,
        ffn_dim=tensors["model.layers.0.mlp.gate_proj.weight"].shape[0],
        vocab_size=embedding.shape[0],
        query_pre_attn_scalar=settings.get("query_pre_attn_scalar", head_dim),
        rope_base=settings["rope_theta"],
        norm_eps=settings["rms_norm_eps"],
        layer=layer,
        dtype=dtype,
        param_dtype=dtype,
        **(_sliding(settings, layers) if generation == 3 else {}),
    )


def entries(config: GemmaConfig) -> list[Entry]:
    """The table."""
    return [
        Entry("model.embed_tokens.weight", (config.vocab_size, config.dim), "embedding"),
        *(entry for i in range(config.layers) for entry in _block(config, i)),
        Entry("model.norm.weight", (config.dim,), "norm/scale"),
    ]


def _block(config: GemmaConfig, i: int) -> list[Entry]:
    D, H, G, K, F = config.dim, config.heads, config.kv_heads, config.head_dim, config.ffn_dim
    layer, every = f"model.layers.{i}", slice(None)

    def matrix(
        name: str,
        shape: tuple[int, int],
        path: str,
        index: int | None = None,
        split: tuple[int, ...] | None = None,
        axes: tuple[int, ...] = (1, 0),
    ) -> Entry:
        slot = (i,) if index is None else (i, every, index)
        return Entry(f"{layer}.{name}.weight", shape, f"blocks/{path}", split, axes, slot)

    return [
        matrix("self_attn.q_proj", (H * K, D), "query", split=(H, K, D), axes=(2, 0, 1)),
        *(
            matrix(
                f"self_attn.{name}_proj",
                (G * K, D),
                "key_value",
                index,
                split=(G, K, D),
                axes=(2, 0, 1),
            )
            for index, name in enumerate("kv")
        ),
        matrix("self_attn.o_proj", (D, H * K), "out", split=(D, H, K), axes=(1, 2, 0)),
        *(
            matrix(f"mlp.{name}_proj", (F, D), "gate_up", index)
            for index, name in enumerate(("gate", "up"))
        ),
        matrix("mlp.down_proj", (D, F), "down"),
        *_norms(config, layer, (i,)),
    ]


def _norms(config: GemmaConfig, layer: str, slot: tuple[int, ...]) -> list[Entry]:
    D, K = config.dim, config.head_dim
    norms = [
        ("input_layernorm", "attention_norm", D),
        (MLP_NORM[config.generation], "mlp_norm", D),
    ]
    if config.generation == 3:
        norms += [
            ("self_attn.q_norm", "query_norm", K),
            ("self_attn.k_norm", "key_norm", K),
            ("post_attention_layernorm", "attention_post_norm", D),
            ("post_feedforward_layernorm", "mlp_post_norm", D),
        ]
    return [
        Entry(f"{layer}.{theirs}.weight", (size,), f"blocks/{ours}/scale", slot=slot)
        for theirs, ours, size in norms
    ]


def _check_setting(settings: Mapping[str, Any], name: str, count: int) -> None:
    """Raise ValueError where the tensors have another number of something than the settings."""
    if settings.get(name, count) != count:
        raise ValueError(
            f"the tensors have {name} = {count}, but its settings say {settings[name]}: some are "
            "missing"
        )


def _generation(tensors: Tensors) -> int:
    if "model.layers.0.self_attn.q_norm.weight" in tensors:
        return 3
    if "model.layers.0.pre_feedforward_layernorm.weight" in tensors:
        raise ValueError("these are the tensors of a Gemma 2, expected Gemma 1 or 3")
    return 1


def _sliding(settings: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Arguments of GemmaConfig about layers that see only the last tokens."""
    period = settings["sliding_window_pattern"]
    kinds = settings.get("layer_types") or [
        "full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(layers)
    ]
    return dict(
        sliding_layers=tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention"),
        sliding_window=settings["sliding_window"],
        local_rope_base=settings["rope_local_base_freq"],
    )


def _read_snapshot(source: str) -> Content:
    source = sources.snapshot(source)
    paths = sources.members(source)
    settings, vocabulary = paths.pop(SETTINGS, ""), paths.pop(VOCABULARY, "")
    weights = {name: path for name, path in paths.items() if ".safetensors" in name}
    if not vocabulary or not weights:
        raise InputError(
            f"source={source}: expected .safetensors and {VOCABULARY}, or a directory of them"
        )
    content = files.read_weights(sources.weights_among(weights, source), sys.modules[__name__])
    tensors = content.tensors
    if "embed_tokens.weight" in tensors:  # of the network without its head
        tensors = {f"model.{name}": x for name, x in tensors.items()}
    metadata = {**content.metadata, **(_settings(settings) if settings else {})}
    return Content(tensors, metadata, {VOCABULARY: sources.read_bytes(vocabulary)})


def _settings(path: str) -> dict[str, Any]:
    """The settings in config.json; rotations by their older names, whichever names it has."""
    settings = sources.read_json(path)
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        raise InputError(f"source={path} has model_type {kind!r}, expected one of {MODEL_TYPES}")
    settings = {name: value for name, value in settings.items() if value is not None}
    rotations: dict[str, Any] = settings.get("rope_parameters", {})
    check_object(rotations, {}, f"source={path}: rope_parameters")
    everywhere: dict[str, Any] = rotations.get("full_attention", rotations)
    local: dict[str, Any] = rotations.get("sliding_attention", {})
    for content in (everywhere, local):
        check_object(content, {}, f"source={path}: rope_parameters")
    settings |= {
        "rope_theta": everywhere.get("rope_theta", settings.get("rope_theta")),
        "rope_local_base_freq": local.get("rope_theta", settings.get("rope_local_base_freq")),
    }
    if {"default"} != {r.get("rope_type", "default") for r in (everywhere, local)}:
        settings["rope_scaling"] = rotations
    settings = {name: value for name, value in settings.items() if value is not None}
    check_object(settings, {name: float for name in NUMBERS if name in settings}, f"source={path}")
    return settings


def _read_gguf(source: str) -> Content:
    content = llama_cpp.read(source)
    architecture = content.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in GGUF_ARCHITECTURES:
        raise InputError(
            f"source={source} is a {architecture!r}, expected one of {list(GGUF_ARCHITECTURES)}"
        )
    names = GGUF_TENSORS | {"ffn_norm": MLP_NORM[GGUF_ARCHITECTURES[architecture]]}

    def renamed(name: str) -> str:
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if block:
            return f"model.layers.{block[1]}.{names.get(block[2], block[2])}.weight"
        name = name.removesuffix(".weight")
        return f"model.{names.get(name, name)}.weight"

    tensors = {
        # llama.cpp has the factor of a norm's output, which is 1 + weight.
        renamed(name): x - 1 if name.endswith("norm.weight") else x
        for name, x in content.tensors.items()
    }
    settings = {
        ours: content.metadata[f"{architecture}.{theirs}"]
        for theirs, ours in GGUF_SETTINGS.items()
        if f"{architecture}.{theirs}" in content.metadata
    }
    check_object(settings, {name: float for name in NUMBERS if name in settings}, source)
    return Content(tensors, settings, content.beside)

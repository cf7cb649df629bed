"""Whisper as CTranslate2 has it: model.bin and JSON files, as faster-whisper downloads them.

Its tensors are those of Hugging Face under other names, with projections of attention joined.
"""

import re

import numpy as np

from maskgil_jax.interop import ctranslate2, sources, whisper
from maskgil_jax.interop.engine import Tensors
from maskgil_jax.interop.files import Content
from maskgil_jax.pretrained.speech_encoder import VOCABULARY
from maskgil_jax.runtime.errors import InputError

CONFIG, IGNORED, ANCHORS = whisper.CONFIG, whisper.IGNORED, whisper.ANCHORS
config, entries = whisper.config, whisper.entries
WEIGHTS, SETTINGS = "model.bin", "config.json"

# Modules of encoder and decoder, and the modules of Hugging Face's that they join.
MODULES = {
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "position_encodings": ("embed_positions",),
    "embeddings": ("embed_tokens",),
    "layer_norm": ("layer_norm",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
KINDS = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
NAME = re.compile(r"(encoder|decoder)/(?:layer_(\d+)/)?(.+)/(\w+)")


def read(source: str) -> Content:
    """Tensors by Hugging Face's names, settings by config.json's, and the vocabulary.

    Args:
      source: the directory, or its files with commas in between.

    Raises:
      InputError: no such file, another file, a truncated or a quantised one.
    """
    paths = sources.members(source)
    if missing := [name for name in (WEIGHTS, SETTINGS, VOCABULARY) if name not in paths]:
        raise InputError(f"source={source} has no {' and no '.join(missing)}")
    tensors: Tensors = {}
    numbers: dict[str, int] = {}
    for name, tensor in ctranslate2.read(paths[WEIGHTS], "WhisperSpec").items():
        if tensor.ndim:
            tensors |= _renamed(paths[WEIGHTS], name, tensor)
        elif name == "encoder/num_heads":
            numbers["heads"] = int(tensor)
    content = sources.read_json(paths[SETTINGS])
    settings = {
        "suppress_tokens": content.get("suppress_ids"),
        "begin_suppress_tokens": content.get("suppress_ids_begin"),
    }
    return Content(tensors, settings | numbers, {VOCABULARY: sources.read_bytes(paths[VOCABULARY])})


def _renamed(path: str, name: str, tensor: np.ndarray) -> Tensors:
    """The tensors of Hugging Face's that a tensor joins."""
    match = NAME.fullmatch(name)
    if not match or match[3] not in MODULES:
        raise InputError(f"source={path}: unknown tensor {name} {tensor.shape}")
    if tensor.dtype == np.int8 or tensor.dtype == np.int16:
        raise InputError(f"source={path}: {name} is quantised, expected float32 or float16")
    side, layer, modules = match[1], match[2], MODULES[match[3]]
    kind = KINDS.get(match[4], match[4])
    prefix = f"model.{side}." + (f"layers.{layer}." if layer else "")
    if len(tensor) % len(modules):
        raise InputError(f"source={path}: {name} {tensor.shape} does not split in {len(modules)}")
    split = zip(modules, np.split(tensor, len(modules)), strict=True)
    # Keys have no bias in Whisper: zeros are joined in its place.
    return {
        f"{prefix}{module}.{kind}": x
        for module, x in split
        if (module[-6:], kind) != ("k_proj", "bias")
    }

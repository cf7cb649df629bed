"""Whisper as CTranslate2 keeps it: model.bin and JSON files, as faster-whisper downloads them.

Its tensors are those of Hugging Face under other names, with projections of attention joined.
"""

import json
import re
from collections.abc import Mapping

import numpy as np

from maskgil_jax.errors import InputError
from maskgil_jax.interop import ctranslate2, files, whisper
from maskgil_jax.interop.engine import Tensors
from maskgil_jax.models.whisper import WhisperConfig

CONFIG, IGNORED, KEPT = whisper.CONFIG, whisper.IGNORED, whisper.KEPT
entries = whisper.entries

# Parts of a side or of its layers, and the parts of Hugging Face's that they join.
PARTS = {
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


def read(source: str) -> Tensors:
    """The tensors by Hugging Face's names.

    Args:
      source: model.bin, or a directory with it.

    Raises:
      InputError: no such file, another file, a truncated or a quantised one.
    """
    paths = [path for path in files.members(source, r"model\.bin") if path.endswith(".bin")]
    if len(paths) != 1:
        raise InputError(f"--source={source}: found {paths}, expected one model.bin")
    tensors: Tensors = {}
    for name, tensor in ctranslate2.read(paths[0], "WhisperSpec").items():
        if tensor.ndim:  # the others are numbers such as that of heads
            tensors |= _renamed(paths[0], name, tensor)
    return tensors


def config(tensors: Tensors, beside: Mapping[str, str], heads: int = 0) -> WhisperConfig:
    """The network, as whisper.config; config.json has other keys here."""
    said = json.loads(beside["config.json"])
    theirs = {
        "suppress_tokens": said["suppress_ids"],
        "begin_suppress_tokens": said["suppress_ids_begin"],
    }
    return whisper.config(tensors, {"config.json": json.dumps(theirs)}, heads)


def _renamed(path: str, name: str, tensor: np.ndarray) -> Tensors:
    found = NAME.fullmatch(name)
    if not found or found[3] not in PARTS:
        raise InputError(f"--source={path}: unknown tensor {name} {tensor.shape}")
    if tensor.dtype == np.int8 or tensor.dtype == np.int16:
        raise InputError(f"--source={path}: {name} is quantised, expected float32 or float16")
    side, layer, parts, kind = found[1], found[2], PARTS[found[3]], KINDS.get(found[4], found[4])
    prefix = f"model.{side}." + (f"layers.{layer}." if layer else "")
    split = zip(parts, np.split(tensor, len(parts)), strict=True)
    # Keys have no bias in Whisper: zeros are joined in its place.
    return {
        f"{prefix}{part}.{kind}": x for part, x in split if (part[-6:], kind) != ("k_proj", "bias")
    }

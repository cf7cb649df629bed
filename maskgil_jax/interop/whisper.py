"""Whisper as Hugging Face publishes it: a snapshot's safetensors and JSON files."""

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from maskgil_jax.interop import description, files, sources
from maskgil_jax.interop.convnet import norm
from maskgil_jax.interop.engine import Entry, Tensors, count_layers
from maskgil_jax.interop.files import Content
from maskgil_jax.models.encoders.whisper import WhisperConfig
from maskgil_jax.pretrained.speech_encoder import VOCABULARY
from maskgil_jax.runtime.errors import InputError

CONFIG = WhisperConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("model.encoder.conv1.weight",)
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
IGNORED = (r"^proj_out\.weight$",)  # the embedding again

# Files of a snapshot that list the suppressed tokens; older snapshots have the second only.
SETTINGS = ("generation_config.json", "config.json")
# Settings of config.json about the network's shape.
SHAPE = ("encoder_layers", "decoder_layers", "encoder_attention_heads")


def read(source: str) -> Content:
    """Tensors, settings and vocabulary of a snapshot.

    Args:
      source: its directory, or its files with commas in between.

    Raises:
      InputError: an unreadable file, or one is missing.
    """
    source = sources.snapshot(source)
    paths = sources.members(source)
    weights = {name: path for name, path in paths.items() if WEIGHTS.fullmatch(name)}
    if not os.path.isdir(source):  # files that were named one by one may have other names
        weights = {name: path for name, path in paths.items() if ".safetensors" in name}
    settings = [paths[name] for name in SETTINGS if name in paths]
    content = Content({}, {}, {})
    if weights and VOCABULARY in paths:
        content = files.read_weights(sources.weights_among(weights, source), sys.modules[__name__])
    if not content.tensors or not (settings or description.KEY in content.metadata):
        raise InputError(
            f"source={source} has {', '.join(paths)}; expected model.safetensors, "
            f"{' or '.join(SETTINGS)} and {VOCABULARY}, or a directory of them"
        )
    contents = [sources.read_json(path) for path in settings] or [{}]
    shape = {name: contents[-1][name] for name in SHAPE if isinstance(contents[-1].get(name), int)}
    vocabulary = {VOCABULARY: sources.read_bytes(paths[VOCABULARY])}
    return Content(content.tensors, {**content.metadata, **contents[0], **shape}, vocabulary)


def config(tensors: Tensors, metadata: Mapping[str, Any], heads: int = 0) -> WhisperConfig:
    """The network, read off the shapes.

    `heads`, where 0, are those of config.json, or dim / 64 without it.

    Args:
      tensors: by name.
      metadata: `suppress_tokens`, `begin_suppress_tokens` and the settings of SHAPE.
      heads: of attention.
    """
    dim, mel_bins, _ = tensors["model.encoder.conv1.weight"].shape
    return WhisperConfig(
        dim=dim,
        heads=heads or metadata.get("encoder_attention_heads") or max(dim // 64, 1),
        mlp_dim=tensors["model.encoder.layers.0.fc1.bias"].shape[0],
        encoder_layers=count_layers(tensors, "model.encoder.layers."),
        decoder_layers=count_layers(tensors, "model.decoder.layers."),
        mel_bins=mel_bins,
        vocabulary=tensors["model.decoder.embed_tokens.weight"].shape[0],
        speech_positions=tensors["model.encoder.embed_positions.weight"].shape[0],
        text_positions=tensors["model.decoder.embed_positions.weight"].shape[0],
        suppressed=metadata.get("suppress_tokens") or (),
        suppressed_first=metadata.get("begin_suppress_tokens") or (),
    )


def entries(config: WhisperConfig) -> list[Entry]:
    """The table."""
    C, M, V = config.dim, config.mel_bins, config.vocabulary
    encoder, decoder = "model.encoder", "model.decoder"
    table = [
        *_convolution(f"{encoder}.conv1", "conv1", M, C),
        *_convolution(f"{encoder}.conv2", "conv2", C, C),
        Entry(
            f"{encoder}.embed_positions.weight",
            (config.speech_positions, C),
            "speech_position_embedding",
        ),
        *norm(f"{encoder}.layer_norm", "encoder_norm", C),
        Entry(f"{decoder}.embed_tokens.weight", (V, C), "embedding"),
        Entry(
            f"{decoder}.embed_positions.weight",
            (config.text_positions, C),
            "text_position_embedding",
        ),
        *norm(f"{decoder}.layer_norm", "decoder_norm", C),
    ]
    for i in range(config.encoder_layers):
        table += _block(config, f"{encoder}.layers.{i}", "encoder_blocks", i)
    for i in range(config.decoder_layers):
        name, path = f"{decoder}.layers.{i}", "decoder_blocks"
        table += _block(config, name, path, i)
        table += norm(f"{name}.encoder_attn_layer_norm", f"{path}/speech_norm", C, (i,))
        table += _attention(config, f"{name}.encoder_attn", f"{path}/speech_attention", i)
    return table


def _block(config: WhisperConfig, name: str, path: str, i: int) -> list[Entry]:
    C, U, slot = config.dim, config.mlp_dim, (i,)
    return [
        *norm(f"{name}.self_attn_layer_norm", f"{path}/norm", C, slot),
        *_attention(config, f"{name}.self_attn", f"{path}/attention", i),
        *norm(f"{name}.final_layer_norm", f"{path}/mlp/norm", C, slot),
        Entry(f"{name}.fc1.weight", (U, C), f"{path}/mlp/up", axes=(1, 0), slot=slot),
        Entry(f"{name}.fc1.bias", (U,), f"{path}/mlp/up_bias", slot=slot),
        Entry(f"{name}.fc2.weight", (C, U), f"{path}/mlp/down", axes=(1, 0), slot=slot),
        Entry(f"{name}.fc2.bias", (C,), f"{path}/mlp/down_bias", slot=slot),
    ]


def _attention(config: WhisperConfig, name: str, path: str, i: int) -> list[Entry]:
    C, heads, every = config.dim, (config.heads, config.head_dim), slice(None)
    slots = {
        "q": ("query", (i,)),
        "k": ("key_value", (i, every, 0)),
        "v": ("key_value", (i, every, 1)),
    }
    table = [
        Entry(
            f"{name}.{letter}_proj.weight",
            (C, C),
            f"{path}/{ours}",
            split=(*heads, C),
            axes=(2, 0, 1),
            slot=slot,
        )
        for letter, (ours, slot) in slots.items()
    ]
    out = f"{name}.out_proj"
    return [
        *table,
        Entry(f"{name}.q_proj.bias", (C,), f"{path}/query_bias", split=heads, slot=(i,)),
        Entry(f"{name}.v_proj.bias", (C,), f"{path}/value_bias", split=heads, slot=(i,)),
        Entry(f"{out}.weight", (C, C), f"{path}/out", (C, *heads), (1, 2, 0), slot=(i,)),
        Entry(f"{out}.bias", (C,), f"{path}/out_bias", slot=(i,)),
    ]


def _convolution(name: str, path: str, cin: int, cout: int) -> list[Entry]:
    return [
        Entry(f"{name}.weight", (cout, cin, 3), f"{path}/kernel", axes=(2, 1, 0)),
        Entry(f"{name}.bias", (cout,), f"{path}/bias"),
    ]

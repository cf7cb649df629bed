"""VQModel of huggingface/diffusers, as Lumina-DiMOO's and aMUSEd's tokenizers are.

Source: diffusers, models/autoencoders/vq_model.py and vae.py.
"""

import os
import sys
from typing import Any

from maskgil_jax.interop import convnet, files, sources
from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.interop.files import Content
from maskgil_jax.models.tokenizers.vq import VQConfig
from maskgil_jax.runtime.errors import InputError

CONFIG = VQConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("quantize.embedding.weight",)
IGNORED = ()
FIXED: dict[str, Any] = dict(style="diffusers", quantizer="euclidean", attention=False)
NAMES = convnet.Names(
    down="encoder.down_blocks.{i}",
    up="decoder.up_blocks.{i}",
    lowest_first=True,
    res="resnets.{j}",
    downsample="downsamplers.0.conv",
    upsample="upsamplers.0.conv",
    middle="mid_block.resnets.{j}",
    attention="attentions.{j}",
    shortcut="conv_shortcut",
    norm_out="conv_norm_out",
)

SETTINGS = "config.json"
# Settings that have one value here.
PUBLISHED: dict[str, Any] = dict(
    _class_name="VQModel",
    act_fn="silu",
    norm_type="group",
    mid_block_add_attention=False,
    lookup_from_codebook=True,
)
SUBFOLDER = "vqvae"  # of a whole pipeline


def read(source: str) -> Content:
    """Tensors, and of config.json, where it lies there, the groups of norms as `norm_groups`.

    Raises:
      InputError: an unreadable or missing file, or another network.
    """
    source = sources.snapshot(source)
    if os.path.isdir(os.path.join(source, SUBFOLDER)):
        raise InputError(
            f"source={source} is a pipeline of several networks, expected its "
            f"{os.path.join(source, SUBFOLDER)}"
        )
    paths = sources.members(source)
    settings_path = paths.pop(SETTINGS, "")
    settings = sources.read_json(settings_path) if settings_path else {}
    for name, value in PUBLISHED.items():
        if settings.get(name, value) != value:
            raise InputError(
                f"source={settings_path} has {name} = {settings[name]!r}, expected {value!r}"
            )
    content = files.read_weights(sources.weights_among(paths, source), sys.modules[__name__])
    known = {"norm_groups": settings["norm_num_groups"]} if "norm_num_groups" in settings else {}
    return Content(content.tensors, {**content.metadata, **known}, {})


def config(tensors: Tensors, norm_groups: int = 32) -> VQConfig:
    """The network, read off the shapes."""
    size, dim = tensors["quantize.embedding.weight"].shape
    return VQConfig(
        **FIXED | convnet.shape_of(tensors, NAMES),
        z_channels=tensors["quant_conv.weight"].shape[1],
        codebook_size=size,
        codebook_dim=dim,
        norm_groups=norm_groups,
    )


def entries(config: VQConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a tokenizer of another family.
    """
    check_same("diffusers-vq", config, FIXED)
    return convnet.entries(config, NAMES) + convnet.codebook(config)

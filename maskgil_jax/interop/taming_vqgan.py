"""VQGAN of CompVis/taming-transformers, as MaskGIL's MaskGIT-VQ and Chameleon's tokenizer are.

Sources: taming/models/vqgan.py; facebookresearch/chameleon, chameleon/inference/vqgan.py, which
has the same tensors but for the attention at the lowest resolution.
"""

from typing import Any

from maskgil_jax.interop import convnet
from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.tokenizers.vq import VQConfig

CONFIG = VQConfig
STATE_DICT_KEYS = ("state_dict", "model", "module", "ema")
ANCHORS = ("quantize.embedding.weight",)
IGNORED = (r"^loss\.", r"^model_ema\.(decay|num_updates)$")
FIXED: dict[str, Any] = dict(style="vqgan", quantizer="euclidean")
NAMES = convnet.Names(
    down="encoder.down.{i}",
    up="decoder.up.{i}",
    lowest_first=False,
    res="block.{j}",
    downsample="downsample.conv",
    upsample="upsample.conv",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
)


def config(tensors: Tensors) -> VQConfig:
    """The network, read off the shapes."""
    size, dim = tensors["quantize.embedding.weight"].shape
    return VQConfig(
        **FIXED,
        **convnet.shape_of(tensors, NAMES),
        z_channels=tensors["quant_conv.weight"].shape[1],
        codebook_size=size,
        codebook_dim=dim,
    )


def entries(config: VQConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a tokenizer of another family.
    """
    check_same("taming-vqgan", config, FIXED)
    return convnet.entries(config, NAMES) + convnet.codebook(config)

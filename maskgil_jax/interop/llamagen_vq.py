"""LlamaGen VQ-16 and VQ-8 (FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py)."""

from typing import Any

from maskgil_jax.interop import convnet
from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.tokenizers.vq import VQConfig

CONFIG = VQConfig
STATE_DICT_KEYS = ("model", "state_dict", "module", "ema")
ANCHORS = ("quantize.embedding.weight",)
IGNORED = ()
FIXED: dict[str, Any] = dict(style="vqgan", quantizer="cosine")
NAMES = convnet.Names(
    down="encoder.conv_blocks.{i}",
    up="decoder.conv_blocks.{i}",
    lowest_first=True,
    res="res.{j}",
    downsample="downsample.conv",
    upsample="upsample.conv",
    middle=("mid.0", "mid.1", "mid.2"),
)
CODEBOOK_USED = 65536  # a buffer of the official class


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
    check_same("llamagen-vq", config, FIXED | dict(attention=True))
    used = Entry("quantize.codebook_used", (CODEBOOK_USED,), "")
    return [*convnet.entries(config, NAMES), *convnet.codebook(config), used]

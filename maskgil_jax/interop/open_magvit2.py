"""Open-MAGVIT2 (TencentARC/SEED-Voken, src/Open_MAGVIT2/models/lfqgan.py).

The official evaluation uses the averaged copies `model_ema.*`, and so does the import unless
the argument weights=model is given.
"""

from typing import Any

from maskgil_jax.interop import convnet
from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.tokenizers.vq import VQConfig

CONFIG = VQConfig
STATE_DICT_KEYS = ("state_dict", "model", "module", "ema")
ANCHORS = ("encoder.conv_out.weight",)
IGNORED = (r"^loss\.", r"^model_ema\.(decay|num_updates)$", r"^quantize\.")
FIXED: dict[str, Any] = dict(style="magvit2", quantizer="lookup_free", z_channels=0)
NAMES = convnet.Names(
    down="encoder.down.{i}",
    up="decoder.up.{i}",
    lowest_first=False,
    res="block.{j}",
    downsample="downsample",
    upsample="upsample.conv1",
    middle="mid_block.{j}",
)


def config(tensors: Tensors) -> VQConfig:
    """The network, read off the shapes."""
    bits = tensors["encoder.conv_out.weight"].shape[0]
    shape = convnet.shape_of(tensors, NAMES)
    return VQConfig(**FIXED, **shape, codebook_size=2**bits, codebook_dim=bits)


def entries(config: VQConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a tokenizer of another family.
    """
    check_same("open-magvit2", config, FIXED | dict(attention=False))
    return convnet.entries(config, NAMES)

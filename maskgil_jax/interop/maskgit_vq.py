"""Google's MaskGIT tokenizer, Flax msgpack (google-research/maskgit, nets/vqgan_tokenizer.py).

Flax numbers the layers of a kind in the order in which they are created.
"""

from typing import Any

from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.tokenizers.vq import VQConfig

CONFIG = VQConfig
STATE_DICT_KEYS = ()
ANCHORS = ("params/quantizer/codebook",)
IGNORED = (r"^(?!params/)",)
FIXED: dict[str, Any] = dict(style="maskgit", quantizer="euclidean", z_channels=0, attention=False)


def config(tensors: Tensors) -> VQConfig:
    """The network, read off the shapes."""
    size, dim = tensors["params/quantizer/codebook"].shape
    channels = tensors["params/encoder/Conv_0/kernel"].shape[-1]
    # Decoder: the first convolution, one an upsampling, the last one.
    levels = sum(_is_kernel(name, "params/decoder/Conv_") for name in tensors) - 1
    blocks = sum(
        name.startswith("params/encoder/ResBlock_") for name in tensors if "Conv_0" in name
    )
    res_blocks = blocks // (levels + 1)  # the middle has as many as a level
    widths = [
        tensors[f"params/encoder/ResBlock_{i * res_blocks}/Conv_0/kernel"].shape[-1]
        for i in range(levels)
    ]
    return VQConfig(
        **FIXED,
        channels=channels,
        channel_multipliers=tuple(width // channels for width in widths),
        res_blocks=res_blocks,
        codebook_size=size,
        codebook_dim=dim,
    )


def entries(config: VQConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a tokenizer of another family.
    """
    check_same("maskgit-vq", config, FIXED)
    inputs = [config.channels] + [config.channels * m for m in config.channel_multipliers]
    last, n, z = len(config.channel_multipliers) - 1, config.res_blocks, config.codebook_dim
    table = _conv("encoder/Conv_0", "encoder/conv_in", 3, inputs[0], 3, bias=False)
    for i in range(last + 1):
        for j in range(n):
            path, cin = f"encoder/levels/{i}/res/{j}", inputs[i + (j > 0)]
            table += _res(f"encoder/ResBlock_{i * n + j}", path, cin, inputs[i + 1])
    table += _middle("encoder", (last + 1) * n, inputs[-1], n)
    table += _norm("encoder/GroupNorm_0", "encoder/norm_out", inputs[-1])
    table += _conv("encoder/Conv_1", "encoder/conv_out", inputs[-1], z, 1)

    widths = inputs[-1:] + inputs[:0:-1]  # from the lowest resolution up
    table += _conv("decoder/Conv_0", "decoder/conv_in", z, widths[0], 3)
    table += _middle("decoder", 0, widths[0], n)
    for i in range(last + 1):
        for j in range(n):
            path, cin = f"decoder/levels/{i}/res/{j}", widths[i + (j > 0)]
            table += _res(f"decoder/ResBlock_{(i + 1) * n + j}", path, cin, widths[i + 1])
        if i < last:
            path, width = f"decoder/levels/{i}/resize/conv", widths[i + 1]
            table += _conv(f"decoder/Conv_{i + 1}", path, width, width, 3)
    table += _norm("decoder/GroupNorm_0", "decoder/norm_out", widths[-1])
    table += _conv(f"decoder/Conv_{last + 1}", "decoder/conv_out", widths[-1], 3, 3)
    shape = (config.codebook_size, config.codebook_dim)
    return [*table, Entry("params/quantizer/codebook", shape, "codebook")]


def _is_kernel(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.endswith("/kernel")


def _middle(side: str, first: int, channels: int, blocks: int) -> list[Entry]:
    table = []
    for j in range(blocks):
        name, path = f"{side}/ResBlock_{first + j}", f"{side}/middle/res/{j}"
        table += _res(name, path, channels, channels)
    return table


def _res(name: str, path: str, cin: int, cout: int) -> list[Entry]:
    table = [
        *_norm(f"{name}/GroupNorm_0", f"{path}/norm1", cin),
        *_conv(f"{name}/Conv_0", f"{path}/conv1", cin, cout, 3, bias=False),
        *_norm(f"{name}/GroupNorm_1", f"{path}/norm2", cout),
        *_conv(f"{name}/Conv_1", f"{path}/conv2", cout, cout, 3, bias=False),
    ]
    if cin != cout:
        table += _conv(f"{name}/Conv_2", f"{path}/shortcut", cout, cout, 1, bias=False)
    return table


def _norm(name: str, path: str, channels: int) -> list[Entry]:
    return [Entry(f"params/{name}/{x}", (channels,), f"{path}/{x}") for x in ("scale", "bias")]


def _conv(
    name: str, path: str, cin: int, cout: int, kernel: int, *, bias: bool = True
) -> list[Entry]:
    shape = (kernel, kernel, cin, cout)
    table = [Entry(f"params/{name}/kernel", shape, f"{path}/kernel")]
    return table + ([Entry(f"params/{name}/bias", (cout,), f"{path}/bias")] if bias else [])

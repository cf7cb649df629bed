"""The table of the taming family's tokenizers (PyTorch), and entries that many formats share.

Their checkpoints hold the same tensors in the same order, under other names.
"""

import dataclasses
from collections.abc import Iterable

from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.models.tokenizers import convnet
from maskgil_jax.models.tokenizers.vq import VQConfig


@dataclasses.dataclass(frozen=True)
class Names:
    """Patterns of foreign names; `{i}` is a level, `{j}` a residual block of it.

    Attributes:
      down, up: the levels of encoder and decoder.
      lowest_first: decoder level 0 is the lowest resolution, else the highest.
      res, attention: within a level.
      downsample, upsample: the resizing convolution within a level.
      middle: residual block, attention, residual block; or a pattern of `{j}`.
      shortcut: within a residual block.
      norm_out: within encoder and decoder.
    """

    down: str
    up: str
    lowest_first: bool
    res: str
    downsample: str
    upsample: str
    middle: str | tuple[str, str, str]
    attention: str = "attn.{j}"
    shortcut: str = "nin_shortcut"
    norm_out: str = "norm_out"


def shape_of(tensors: Tensors, names: Names) -> dict:
    """Arguments of VQConfig that the encoder's tensors show."""

    def count(pattern: str) -> int:
        i = 0
        while any(name.startswith(pattern.format(i=i, j=i) + ".") for name in tensors):
            i += 1
        return i

    channels = tensors["encoder.conv_in.weight"].shape[0]
    levels = count(names.down)
    first = names.res.format(j=0)
    widths = [
        tensors[f"{names.down.format(i=i)}.{first}.conv1.weight"].shape[0] for i in range(levels)
    ]
    lowest = names.down.format(i=levels - 1)
    return dict(
        channels=channels,
        channel_multipliers=tuple(width // channels for width in widths),
        res_blocks=count(f"{names.down.format(i=0)}.{names.res}"),
        attention=f"{lowest}.{names.attention.format(j=0)}.q.weight" in tensors,
    )


def entries(config: VQConfig, names: Names) -> list[Entry]:
    """The tables of encoder and decoder."""
    style = convnet.STYLES[config.style]
    blocks = style.middle_blocks or config.res_blocks  # of a middle without attention
    widths = [config.channels] + [config.channels * m for m in config.channel_multipliers]
    last, z = len(config.channel_multipliers) - 1, config.z_channels or config.codebook_dim
    table = conv("encoder.conv_in", "encoder/conv_in", 3, widths[0], 3, bias=style.bias)
    for i in range(last + 1):
        name, path = names.down.format(i=i), f"encoder/levels/{i}"
        attention = config.attention and i == last
        for j in range(config.res_blocks):
            cin = widths[i + (j > 0)]
            table += level(name, path, j, cin, widths[i + 1], names, style.bias, attention)
        if i < last:
            resize = f"{path}/resize/conv"
            table += conv(f"{name}.{names.downsample}", resize, widths[i + 1], widths[i + 1], 3)
    table += middle("encoder", widths[-1], blocks, names, style.bias)
    table += norm(f"encoder.{names.norm_out}", "encoder/norm_out", widths[-1])
    table += conv("encoder.conv_out", "encoder/conv_out", widths[-1], z, style.out_kernel)

    widths = widths[-1:] + widths[:0:-1]  # from the lowest resolution up
    table += conv("decoder.conv_in", "decoder/conv_in", z, widths[0], 3)
    table += middle("decoder", widths[0], blocks, names, style.bias)
    for i in range(last + 1):
        number = i if names.lowest_first else last - i
        name, path = names.up.format(i=number), f"decoder/levels/{i}"
        if style.adaptive_norm:
            adaptive = f"decoder.adaptive.{number}", f"decoder/adaptive/{i}"
            table += linear(f"{adaptive[0]}.gamma", f"{adaptive[1]}/scale", z, widths[i])
            table += linear(f"{adaptive[0]}.beta", f"{adaptive[1]}/shift", z, widths[i])
        for j in range(config.res_blocks + style.extra_block):
            cin, attention = widths[i + (j > 0)], config.attention and i == 0
            table += level(name, path, j, cin, widths[i + 1], names, style.bias, attention)
        if i < last:
            factor = 4 if style.upsample is convnet.DepthToSpace else 1
            cout = factor * widths[i + 1]
            table += conv(f"{name}.{names.upsample}", f"{path}/resize/conv", widths[i + 1], cout, 3)
    table += norm(f"decoder.{names.norm_out}", "decoder/norm_out", widths[-1])
    table += conv("decoder.conv_out", "decoder/conv_out", widths[-1], 3, 3)
    return table


def codebook(config: VQConfig) -> list[Entry]:
    """The codebook and the projections around it."""
    z, V, C = config.z_channels, config.codebook_size, config.codebook_dim
    return [
        Entry("quantize.embedding.weight", (V, C), "codebook"),
        *conv("quant_conv", "quant_conv", z, C, 1),
        *conv("post_quant_conv", "post_quant_conv", C, z, 1),
    ]


def level(
    name: str,
    path: str,
    j: int,
    cin: int,
    cout: int,
    names: Names,
    bias: bool,
    with_attention: bool,
) -> list[Entry]:
    """Residual block `j` of a level and the attention after it."""
    theirs = f"{name}.{names.res.format(j=j)}"
    table = res(theirs, f"{path}/res/{j}", cin, cout, bias, names.shortcut)
    if with_attention:
        table += attention(f"{name}.{names.attention.format(j=j)}", f"{path}/attention/{j}", cout)
    return table


def middle(side: str, channels: int, blocks: int, names: Names, bias: bool) -> list[Entry]:
    """The layers between the levels and the quantiser."""
    path = f"{side}/middle"
    if isinstance(names.middle, str):
        pairs = [(f"{side}.{names.middle.format(j=j)}", f"{path}/res/{j}") for j in range(blocks)]
        return flat(res(name, ours, channels, channels, bias) for name, ours in pairs)
    first, between, second = (f"{side}.{name}" for name in names.middle)
    return [
        *res(first, f"{path}/res1", channels, channels, bias),
        *attention(between, f"{path}/attention", channels),
        *res(second, f"{path}/res2", channels, channels, bias),
    ]


def res(
    name: str, path: str, cin: int, cout: int, bias: bool, shortcut_name: str = "nin_shortcut"
) -> list[Entry]:
    """A residual block."""
    shortcut = conv(f"{name}.{shortcut_name}", f"{path}/shortcut", cin, cout, 1, bias=bias)
    return [
        *norm(f"{name}.norm1", f"{path}/norm1", cin),
        *conv(f"{name}.conv1", f"{path}/conv1", cin, cout, 3, bias=bias),
        *norm(f"{name}.norm2", f"{path}/norm2", cout),
        *conv(f"{name}.conv2", f"{path}/conv2", cout, cout, 3, bias=bias),
        *(shortcut if cin != cout else []),
    ]


def attention(name: str, path: str, channels: int) -> list[Entry]:
    """An attention block."""
    pairs = (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out"))
    return norm(f"{name}.norm", f"{path}/norm", channels) + flat(
        conv(f"{name}.{theirs}", f"{path}/{ours}", channels, channels, 1) for theirs, ours in pairs
    )


def norm(name: str, path: str, channels: int, slot: tuple[int, ...] = ()) -> list[Entry]:
    """Scale and bias of a normalisation."""
    return [
        Entry(f"{name}.weight", (channels,), f"{path}/scale", slot=slot),
        Entry(f"{name}.bias", (channels,), f"{path}/bias", slot=slot),
    ]


def conv(
    name: str, path: str, cin: int, cout: int, kernel: int, *, bias: bool = True
) -> list[Entry]:
    """A convolution, OIHW to HWIO."""
    shape, axes = (cout, cin, kernel, kernel), (2, 3, 1, 0)
    table = [Entry(f"{name}.weight", shape, f"{path}/kernel", axes=axes)]
    return table + ([Entry(f"{name}.bias", (cout,), f"{path}/bias")] if bias else [])


def linear(name: str, path: str, cin: int, cout: int) -> list[Entry]:
    """A dense layer with its bias."""
    return [
        Entry(f"{name}.weight", (cout, cin), f"{path}/kernel", axes=(1, 0)),
        Entry(f"{name}.bias", (cout,), f"{path}/bias"),
    ]


def flat(tables: Iterable[list[Entry]]) -> list[Entry]:
    """One table out of several."""
    return [entry for table in tables for entry in table]

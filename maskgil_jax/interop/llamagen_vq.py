"""LlamaGen VQ-16 and VQ-8 (FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py)."""

from maskgil_jax.errors import InputError
from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.tokenizers.vq import VQConfig

KIND = "tokenizer"
STATE_DICT_KEYS = ("model", "state_dict")
CODEBOOK_USED = 65536  # a buffer of the official class


def config(tensors: Tensors, **extra: object) -> VQConfig:
    """The network, read off the shapes."""
    if extra:
        raise InputError(f"--arg: unknown {sorted(extra)}, llamagen-vq needs none")
    channels = tensors["encoder.conv_in.weight"].shape[0]
    levels = 1 + max(int(n.split(".")[2]) for n in tensors if n.startswith("encoder.conv_blocks."))
    blocks = 1 + max(
        int(n.split(".")[4]) for n in tensors if n.startswith("encoder.conv_blocks.0.res.")
    )
    size, dim = tensors["quantize.embedding.weight"].shape
    widths = [
        tensors[f"encoder.conv_blocks.{i}.res.0.conv1.weight"].shape[0] for i in range(levels)
    ]
    return VQConfig(
        channels=channels,
        channel_multipliers=tuple(width // channels for width in widths),
        res_blocks=blocks,
        z_channels=tensors["quant_conv.weight"].shape[1],
        codebook_size=size,
        codebook_dim=dim,
    )


def entries(config: VQConfig) -> list[Entry]:
    """The table."""
    widths = [config.channels] + [config.channels * m for m in config.channel_multipliers]
    last, z = len(config.channel_multipliers) - 1, config.z_channels
    table = _conv("encoder.conv_in", "encoder/conv_in", 3, config.channels, 3)
    for i in range(last + 1):
        name, path = f"encoder.conv_blocks.{i}", f"encoder/levels/{i}"
        table += _level(name, path, widths[i], widths[i + 1], config.res_blocks, i == last)
        if i < last:
            down = f"{name}.downsample.conv"
            table += _conv(down, f"{path}/resize/conv", widths[i + 1], widths[i + 1], 3)
    table += _middle("encoder.mid", "encoder/middle", widths[-1])
    table += _norm("encoder.norm_out", "encoder/norm_out", widths[-1])
    table += _conv("encoder.conv_out", "encoder/conv_out", widths[-1], z, 3)

    widths = widths[:0:-1]  # the decoder starts at the lowest resolution
    table += _conv("decoder.conv_in", "decoder/conv_in", z, widths[0], 3)
    table += _middle("decoder.mid", "decoder/middle", widths[0])
    for i in range(last + 1):
        name, path = f"decoder.conv_blocks.{i}", f"decoder/levels/{i}"
        cin = widths[max(i - 1, 0)]
        table += _level(name, path, cin, widths[i], config.res_blocks + 1, i == 0)
        if i < last:
            table += _conv(f"{name}.upsample.conv", f"{path}/resize/conv", widths[i], widths[i], 3)
    table += _norm("decoder.norm_out", "decoder/norm_out", widths[-1])
    table += _conv("decoder.conv_out", "decoder/conv_out", widths[-1], 3, 3)

    shape = (config.codebook_size, config.codebook_dim)
    table.append(Entry("quantize.embedding.weight", shape, "codebook"))
    table.append(Entry("quantize.codebook_used", (CODEBOOK_USED,), ""))
    table += _conv("quant_conv", "quant_conv", z, config.codebook_dim, 1)
    table += _conv("post_quant_conv", "post_quant_conv", config.codebook_dim, z, 1)
    return table


def _level(name: str, path: str, cin: int, cout: int, blocks: int, attention: bool) -> list[Entry]:
    table = []
    for i in range(blocks):
        table += _res(f"{name}.res.{i}", f"{path}/res/{i}", cout if i else cin, cout)
    for i in range(blocks if attention else 0):
        table += _attention(f"{name}.attn.{i}", f"{path}/attention/{i}", cout)
    return table


def _middle(name: str, path: str, channels: int) -> list[Entry]:
    return [
        *_res(f"{name}.0", f"{path}/res1", channels, channels),
        *_attention(f"{name}.1", f"{path}/attention", channels),
        *_res(f"{name}.2", f"{path}/res2", channels, channels),
    ]


def _res(name: str, path: str, cin: int, cout: int) -> list[Entry]:
    shortcut = _conv(f"{name}.nin_shortcut", f"{path}/shortcut", cin, cout, 1)
    return [
        *_norm(f"{name}.norm1", f"{path}/norm1", cin),
        *_conv(f"{name}.conv1", f"{path}/conv1", cin, cout, 3),
        *_norm(f"{name}.norm2", f"{path}/norm2", cout),
        *_conv(f"{name}.conv2", f"{path}/conv2", cout, cout, 3),
        *(shortcut if cin != cout else []),
    ]


def _attention(name: str, path: str, channels: int) -> list[Entry]:
    table = _norm(f"{name}.norm", f"{path}/norm", channels)
    for theirs, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out")):
        table += _conv(f"{name}.{theirs}", f"{path}/{ours}", channels, channels, 1)
    return table


def _norm(name: str, path: str, channels: int) -> list[Entry]:
    return [
        Entry(f"{name}.weight", (channels,), f"{path}/scale"),
        Entry(f"{name}.bias", (channels,), f"{path}/bias"),
    ]


def _conv(name: str, path: str, cin: int, cout: int, kernel: int) -> list[Entry]:
    return [
        Entry(f"{name}.weight", (cout, cin, kernel, kernel), f"{path}/kernel", axes=(2, 3, 1, 0)),
        Entry(f"{name}.bias", (cout,), f"{path}/bias"),
    ]

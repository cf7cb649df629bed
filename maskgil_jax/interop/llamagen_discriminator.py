"""LlamaGen's discriminators, in its training checkpoints beside the tokenizer.

Sources: FoundationVision/LlamaGen, tokenizer/tokenizer_image/discriminator_patchgan.py and
discriminator_stylegan.py.
"""

from maskgil_jax.interop import convnet
from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.models.perceptual.discriminator import DiscriminatorConfig, StyleGAN

CONFIG = DiscriminatorConfig
STATE_DICT_KEYS = ("discriminator", "state_dict")
ANCHORS = ("main.0.weight", "blocks.0.weight")
IGNORED = ()


def config(tensors: Tensors) -> DiscriminatorConfig:
    """The network, read off the shapes."""
    if "blocks.0.weight" not in tensors:
        return DiscriminatorConfig(
            kind="patchgan",
            channels=tensors["main.0.weight"].shape[0],
            layers=sum(name.endswith("running_mean") for name in tensors),
        )
    size = 4 * 2 ** sum(name.endswith("conv_res.weight") for name in tensors)
    channels = tensors["final_conv.0.weight"].shape[0] // 8
    return DiscriminatorConfig(kind="stylegan", channels=channels, image_size=size)


def entries(config: DiscriminatorConfig) -> list[Entry]:
    """The table."""
    return (_patchgan if config.kind == "patchgan" else _stylegan)(config)


def _patchgan(config: DiscriminatorConfig) -> list[Entry]:
    widths = [config.channels * min(2**i, 8) for i in range(config.layers + 1)]
    table = convnet.conv("main.0", "conv_in", 3, widths[0], 4)
    for i in range(config.layers):
        conv, norm, width = f"main.{3 * i + 2}", f"main.{3 * i + 3}", widths[i + 1]
        table += convnet.conv(conv, f"convs/{i}", widths[i], width, 4, bias=False)
        table += [
            *convnet.norm(norm, f"norms/{i}", width),
            Entry(f"{norm}.running_mean", (width,), f"norms/{i}/mean"),
            Entry(f"{norm}.running_var", (width,), f"norms/{i}/variance"),
            Entry(f"{norm}.num_batches_tracked", (), "", dtype="int64"),
        ]
    return table + convnet.conv(f"main.{3 * config.layers + 2}", "conv_out", widths[-1], 1, 4)


def _stylegan(config: DiscriminatorConfig) -> list[Entry]:
    widths = StyleGAN.widths(config)
    last = widths[-1]
    table = convnet.conv("blocks.0", "conv_in", 3, widths[0], 3)
    for i, (cin, cout) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        theirs, ours = f"blocks.{i + 2}", f"blocks/{i}"  # their block 1 is an activation
        table += convnet.conv(f"{theirs}.conv_res", f"{ours}/shortcut", cin, cout, 1)
        table += convnet.conv(f"{theirs}.net.0", f"{ours}/conv1", cin, cout, 3)
        table += convnet.conv(f"{theirs}.net.2", f"{ours}/conv2", cout, cout, 3)
        table += convnet.conv(f"{theirs}.downsample.1", f"{ours}/downsample", cout, cout, 3)
        table.append(Entry(f"{theirs}.downsample.0.f", (3,), "", value=(1.0, 2.0, 1.0)))
    table += convnet.conv("final_conv.0", "conv_out", last, last, 3)
    # Theirs is a matrix on the flattened [C, 4, 4] features.
    split, axes = (last, last, 4, 4), (2, 3, 1, 0)
    return [
        *table,
        Entry("final_linear.0.weight", (last, 16 * last), "dense/kernel", split, axes),
        Entry("final_linear.0.bias", (last,), "dense/bias"),
        *convnet.linear("final_linear.2", "out", last, 1),
    ]

"""FID's Inception: weights-inception-2015-12-05-6726825d.pth of torch-fidelity.

pytorch-fid's pt_inception-2015-12-05-6726825d.pth has the same tensors.
"""

from maskgil_jax.interop import convnet
from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.models.perceptual.inception import CLASSES, InceptionConfig, layers

CONFIG = InceptionConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("Conv2d_1a_3x3.conv.weight",)
IGNORED = ()


def config(tensors: Tensors) -> InceptionConfig:
    """The network, which has one shape."""
    tensors["Mixed_7c.branch_pool.conv.weight"]  # KeyError where it is another network
    return InceptionConfig()


def entries(config: InceptionConfig) -> list[Entry]:
    """The table."""
    table: list[Entry] = []
    for name, cin, conv in layers():
        path, shape = f"convs/{name}", (conv.channels,)
        weight = (conv.channels, cin, *conv.kernel)
        table += [
            Entry(f"{name}.conv.weight", weight, f"{path}/conv/kernel", axes=(2, 3, 1, 0)),
            *convnet.norm(f"{name}.bn", f"{path}/norm", conv.channels),
            Entry(f"{name}.bn.running_mean", shape, f"{path}/norm/mean"),
            Entry(f"{name}.bn.running_var", shape, f"{path}/norm/var"),
            Entry(f"{name}.bn.num_batches_tracked", (), "", dtype="int64"),
        ]
    return table + convnet.linear("fc", "head", 2048, CLASSES)

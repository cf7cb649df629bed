"""LPIPS: torchvision's VGG16 (features.*) and the heads of the official vgg.pth (lin*).

The two are public files of their own, so that the source is "vgg16-397923af.pth,vgg.pth".
"""

from maskgil_jax.interop import convnet
from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.models.perceptual.lpips import CONVOLUTIONS, LPIPSConfig

CONFIG = LPIPSConfig
STATE_DICT_KEYS = ("state_dict", "model")
ANCHORS = ("features.0.weight", "lin0.model.1.weight")
IGNORED = (r"^classifier\.", r"^scaling_layer\.")


def config(tensors: Tensors) -> LPIPSConfig:
    """The network, read off the shapes.

    Raises:
      ValueError: one of the two files is missing.
    """
    if not any(name.startswith("features.") for name in tensors):
        raise ValueError(
            "the VGG16 backbone is missing: give torchvision's vgg16-397923af.pth too, separated "
            "by a comma"
        )
    if not any(name.startswith("lin") for name in tensors):
        raise ValueError(
            "the LPIPS heads are missing: give vgg.pth of LPIPS too, separated by a comma"
        )
    return LPIPSConfig(
        channels=tuple(tensors[f"lin{k}.model.1.weight"].shape[1] for k in range(len(CONVOLUTIONS)))
    )


def entries(config: LPIPSConfig) -> list[Entry]:
    """The table."""
    table: list[Entry] = []
    cin, layer = 3, 0  # in torchvision's numbering relu and pooling are layers too
    for group, (width, count) in enumerate(zip(config.channels, CONVOLUTIONS, strict=True)):
        for i in range(count):
            table += convnet.conv(f"features.{layer}", f"groups/{group}/{i}", cin, width, 3)
            cin, layer = width, layer + 2
        layer += 1
        head = f"lin{group}.model.1.weight"
        table.append(Entry(head, (1, width, 1, 1), f"heads/{group}", split=(width,)))
    return table

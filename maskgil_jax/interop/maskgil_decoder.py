"""Our tokenizers' decoders, of all families, for the module in PyTorch: maskgil_torch/."""

import dataclasses
import json

from maskgil_jax.interop.engine import Entry
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.runtime import trees

# Paths of what decodes, as in `trees.flatten`.
OF_DECODER = ("decoder/", "post_quant_conv/", "codebook")
# The middle's layers have numbers there.
MIDDLE = {"res1": "0", "attention": "1", "res2": "2"}
AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # of kernels: OIHW to HWIO, and OI to IO


def metadata(config: VQConfig) -> dict[str, str]:
    """The config, which stands beside the tensors."""
    return {"config": json.dumps(dataclasses.asdict(config))}


def entries(network: VQTokenizer) -> list[Entry]:
    """The table; `network` may be of shapes alone."""
    table = []
    for path, leaf in trees.flatten(network).items():
        if not path.startswith(OF_DECODER):
            continue
        axes = AXES[leaf.ndim] if path.endswith("/kernel") else None
        shape = (
            leaf.shape
            if axes is None
            else tuple(leaf.shape[axes.index(i)] for i in range(leaf.ndim))
        )
        table.append(Entry(_name(path), shape, path, axes=axes))
    return table


def _name(path: str) -> str:
    """`levels.0.res.1.conv1.weight` for decoder/levels/0/res/1/conv1/kernel."""
    parts = path.removeprefix("decoder/").split("/")
    if parts[0] == "middle":  # either numbered, or of three kinds
        parts[1:3] = parts[2:3] if parts[1] == "res" else [MIDDLE[parts[1]], *parts[2:3]]
    if parts[-1] in ("kernel", "scale"):
        parts[-1] = "weight"
    return ".".join(parts)

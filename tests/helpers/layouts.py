"""How parameters lie on a mesh of 8 devices."""

import jax
import numpy as np

from maskgil_jax.runtime import sharding


def pieces_of(shapes):
    """Into how many pieces each parameter is split, by its name.

    Args:
      shapes: a network, or its shapes.
    """
    mesh = sharding.make_mesh(dict(data=2, fsdp=2, tensor=2))
    layouts = jax.tree.leaves(sharding.state_shardings(shapes, mesh))
    leaves = jax.tree.leaves_with_path(shapes)
    return {
        sharding.name_of(path): leaf.size // np.prod(layout.shard_shape(leaf.shape))
        for (path, leaf), layout in zip(leaves, layouts, strict=True)
    }

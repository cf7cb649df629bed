"""Trees of arrays as flat dicts, `path -> array`, which depend on no class of Flax or optax."""

from typing import Any, TypeVar

import jax

from maskgil_jax.runtime import sharding

Tree = TypeVar("Tree")


def flatten(tree: Any) -> dict[str, Any]:
    """`{"model/blocks/qkv": leaf, ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {sharding.name_of(path): leaf for path, leaf in leaves}


def unflatten(like: Tree, leaves: dict[str, Any]) -> Tree:
    """The tree `like` with the leaves of a flat dict."""
    return jax.tree.map_with_path(lambda path, _: leaves[sharding.name_of(path)], like)


def same_shapes(a: Any, b: Any) -> bool:
    """Whether two trees, of arrays or of shapes, have the same names and shapes."""
    shapes = [{name: leaf.shape for name, leaf in flatten(tree).items()} for tree in (a, b)]
    return shapes[0] == shapes[1]

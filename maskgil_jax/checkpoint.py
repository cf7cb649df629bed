"""What is on disk: training checkpoints and model directories, both through Orbax.

A tree is stored as a flat dict `path -> array`, so that a checkpoint depends neither on Flax's nor
on optax's classes. The data position is the step itself (see data/pipeline.py).

A model directory holds `params/` (Orbax) and `model.json` (class, constructor arguments, format
version), written last: a directory without it is not a model. Nothing in it executes.
"""

import hashlib
import json
import uuid
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from maskgil_jax import sharding
from maskgil_jax.errors import InputError

FORMAT = 1
Tree = TypeVar("Tree")


def flatten(tree: Any) -> dict[str, Any]:
    """`{"model/blocks/qkv": leaf, ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {sharding.name_of(path): leaf for path, leaf in leaves}


def unflatten(like: Tree, leaves: dict[str, Any]) -> Tree:
    """The tree `like` with the leaves of a flat dict."""
    return jax.tree.map_with_path(lambda path, _: leaves[sharding.name_of(path)], like)


class Checkpoints:
    """The training checkpoints of one work directory, saved in the background.

    A context: leaving it, by whatever way, waits for what is being saved.
    """

    def __init__(self, directory: epath.PathLike, keep: int):
        training = ocp.training
        self._checkpointer = training.Checkpointer(
            epath.Path(directory),
            # The loop decides when; Orbax's default policy may skip a save that it is asked for.
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,  # left by a process that was killed while saving
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any) -> None:
        """Begin to save; does nothing if the step is already there."""
        if self.latest != step:
            self._checkpointer.save_async(step, flatten(state))

    def restore(self, like: Tree) -> Tree:
        """The newest state, as arrays of the shapes, dtypes and shardings of `like`."""
        return unflatten(like, self._checkpointer.load(self.latest, abstract_state=flatten(like)))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._checkpointer.close()


def write_npz(path: epath.PathLike, **arrays: Any) -> None:
    """Write an npz that is there whole or not at all."""
    path = epath.Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def write_json(path: epath.PathLike, content: Any) -> None:
    """Write a file that is either whole or absent."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def save_model(directory: epath.PathLike, description: dict[str, Any], params: Any) -> None:
    """Write a model directory; another one that is there is replaced only when this one is whole.

    Args:
      directory: where to.
      description: JSON-able; `class` and `arguments` at least.
      params: the module or tree of parameters.
    """
    directory = epath.Path(directory).resolve()
    flat = flatten(params)
    content = dict(description, format=FORMAT, fingerprint=fingerprint(flat))
    content = json.loads(json.dumps(content))
    if (directory / "model.json").exists() and read_description(directory) == content:
        return
    fresh = directory.with_name(f"{directory.name}.{uuid.uuid4().hex[:8]}.tmp")
    ocp.save(fresh / "params", flat)
    write_json(fresh / "model.json", content)
    if directory.exists():
        old = directory.with_name(f"{directory.name}.{uuid.uuid4().hex[:8]}.old.tmp")
        directory.rename(old)
        fresh.rename(directory)
        old.rmtree()
    else:
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(directory)


def read_description(directory: epath.PathLike) -> dict[str, Any]:
    """`model.json` of a model directory.

    Raises:
      InputError: no model there, or one of a later format.
    """
    path = epath.Path(directory) / "model.json"
    if not path.exists():
        raise InputError(f"{directory} is not a model directory: it has no model.json")
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON: {error}") from None
    if description.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {description.get('format')}, this version reads {FORMAT}"
        )
    return description


def load_params(directory: epath.PathLike, like: Tree) -> Tree:
    """The parameters of a model directory in the shape of `like` (arrays or shapes), on one device.

    Raises:
      InputError: the directory's tensors are not those of `like`.
    """
    path = epath.Path(directory) / "params"
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    expected = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
        for name, leaf in flatten(like).items()
    }
    try:
        return unflatten(like, ocp.load(path, abstract_state=expected))
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise InputError(f"{directory} does not hold what its model.json says: {error}") from error


def fingerprint(params: Any) -> str:
    """Sixteen hex digits that name the parameters' values, whatever their order in memory."""
    digest = hashlib.sha256()
    flat = params if isinstance(params, dict) else flatten(params)
    for name in sorted(flat):
        value = np.asarray(jax.device_get(flat[name]))
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]

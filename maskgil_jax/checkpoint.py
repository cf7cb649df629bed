"""What is on disk: training checkpoints and model directories, both through Orbax.

A tree is stored as a flat dict `path -> array`, so that a checkpoint depends neither on Flax's nor
on optax's classes. The data position is the step itself (see data/pipeline.py).

A model directory holds `params/` (Orbax) and `model.json` (class, constructor arguments, format
version), written last: a directory without it is not a model. Beside them may lie other files that
the model needs, such as a vocabulary. Nothing in it executes.
"""

import contextlib
import gc
import hashlib
import io
import json
import logging
import math
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from maskgil_jax import paths, processes, sharding
from maskgil_jax.errors import InputError
from maskgil_jax.runtime import swap
from maskgil_jax.runtime.files import Types, check_object, read_json, write_json

log = logging.getLogger("maskgil_jax")

FORMAT = 1
# Of model.json: what loading needs, and what there may be besides.
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


class Checkpoints:
    """The training checkpoints of one work directory, saved in the background.

    A context: leaving it, by whatever way, waits for what is being saved. With several processes
    all of them call every method.
    """

    def __init__(self, directory: epath.Path, config: ConfigDict, about: dict[str, Any]):
        """Open the directory, which is made if needed.

        Args:
          directory: of the checkpoints.
          config: keep_checkpoints and keep_every say which stay.
          about: JSON-able, kept in each checkpoint: the config and the version of the code.
        """
        training = ocp.training
        policies = training.preservation_policies
        kept = [policies.LatestN(config.keep_checkpoints)]
        if config.keep_every:
            kept.append(policies.EveryNSteps(config.keep_every))
        self._directory, self._about = directory, about
        self._newest, self._every = config.keep_checkpoints, config.keep_every
        self._checkpointer = training.Checkpointer(
            directory,
            # The loop decides when; Orbax's default policy may skip a save that it is asked for.
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,  # left by a process that was killed while saving
        )
        self._saving: ocp.AsyncResponse[bool] | None = None

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    @property
    def weight_norms(self) -> dict[int, float]:
        """`weight_norm` of the checkpoints by step, in order; without those that do not say it."""
        self.wait()
        norms = {
            c.step: self._note_of(c.step, "weight_norm") for c in self._checkpointer.checkpoints
        }
        return {step: float(norm) for step, norm in norms.items() if norm}

    def save(self, step: int, state: Any, *, weight_norm: float) -> None:
        """Begin to save, once the save before is done; nothing if the step is already there.

        Args:
          step: of the state.
          state: arrays.
          weight_norm: of all trained weights, kept beside them.

        Raises:
          InputError: this checkpoint, or the one before, could not be written; or the directory
            was removed.
        """
        self.wait()
        if not (paths.is_remote(self._directory) or self._directory.exists()):
            # Orbax would make it again, with this checkpoint alone.
            raise InputError(f"{self._directory} was removed while the run went on")
        if self.latest == step:
            return
        flat, notes = flatten(state), self._about | {"weight_norm": str(weight_norm)}
        try:
            self._saving = self._checkpointer.save_async(
                step, flat | {CHECKSUMS: _checksums(flat)}, custom_metadata=notes
            )
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error

    def wait(self) -> None:
        """Until the last save is on disk, and the checkpoints that it replaces are deleted.

        Raises:
          InputError: it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()  # also ends the thread and the event loop that Orbax starts for it
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error

    def restore(self, like: Tree) -> Tree:
        """The newest state that can be read, as arrays with the shapes and shardings of `like`.

        A checkpoint that is damaged is named and moved aside, and the one before it is used.

        Raises:
          InputError: none can be read; nothing is moved then.
        """
        flat, damaged = flatten(like), {}
        whole = jax.tree.leaves(flat)[0].sharding.mesh
        flat[CHECKSUMS] = jax.ShapeDtypeStruct(
            (len(flat),), np.uint32, sharding=sharding.replicated(whole)
        )
        for checkpoint in reversed(self._checkpointer.checkpoints):
            leaves, reason = self._read(checkpoint.step, flat)
            if processes.total(bool(reason)):
                damaged[checkpoint.step] = reason or "another process cannot read it"
                continue
            self._move_aside(damaged)
            self._delete_replaced()
            return unflatten(like, leaves)
        reasons = "\n".join(f"  step {step}: {reason}" for step, reason in damaged.items())
        raise InputError(
            f"{self._directory}: no checkpoint can be read (see below). Choose another --workdir, "
            f"or move this directory away to train anew:\n{reasons}"
        )

    def _read(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The leaves; or why not."""
        try:
            leaves = dict(self._checkpointer.load(step, abstract_state=like))
        # Orbax and TensorStore report damage in many ways, bare exceptions among them.
        except Exception as error:
            saved_by = self._note_of(step, "code")
            by = f" (saved by {saved_by}, this is {self._about['code']})" if saved_by else ""
            return {}, " ".join(f"{type(error).__name__}: {error}".split())[:300] + by
        found = np.asarray(_checksums({n: x for n, x in leaves.items() if n != CHECKSUMS}))
        wrong = found != np.asarray(leaves.pop(CHECKSUMS))
        names = [name for name, bad in zip(sorted(leaves), wrong, strict=True) if bad]
        return leaves, f"the values of {', '.join(names[:4])} are not those saved" if names else ""

    def _note_of(self, step: int, name: str) -> str:
        try:
            return (self._checkpointer.metadata(step).custom_metadata or {}).get(name, "")
        except Exception:  # as above
            return ""

    def _move_aside(self, damaged: dict[int, str]) -> None:
        for step, reason in damaged.items():
            aside = self._directory.with_name(f"damaged-{step}-{uuid.uuid4().hex[:8]}")
            log.warning(
                "%s is damaged and moved to %s; the checkpoint before it is used: %s",
                self._directory / str(step),
                aside.name,
                reason,
            )
            if processes.first():
                (self._directory / str(step)).rename(aside)
        if damaged:
            processes.wait("damaged checkpoints moved")
            self._checkpointer.reload()

    def _delete_replaced(self) -> None:
        """Delete what the last save should have: a kill in the midst leaves parts of it behind."""
        steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        replaced = [s for s in steps[: -self._newest] if not (self._every and s % self._every == 0)]
        if not replaced:
            return
        if processes.first():
            for step in replaced:
                log.info("deleting checkpoint %d, which newer ones have replaced", step)
                (self._directory / str(step)).rmtree()
        processes.wait("replaced checkpoints deleted")
        self._checkpointer.reload()

    def _not_written(self, error: Exception) -> InputError:
        return InputError(
            f"{self._directory}: a checkpoint could not be written: {error}\nThe newest complete "
            f"one is of step {self.latest or 0}; once the directory can be written, the same "
            "command goes on from there"
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, raised: BaseException | None, traceback: Any) -> None:
        try:
            try:
                self.wait()
            finally:
                self._checkpointer.close()
        except (OSError, ValueError) as error:
            failed = error if isinstance(error, InputError) else self._not_written(error)
            if raised is None:
                raise failed from error
            log.error("%s", failed)


CHECKSUMS = "checksums"  # uint32 [leaves], in the order of their names


@jax.jit
def _checksums(leaves: dict[str, jax.Array]) -> jax.Array:
    """The sum of the words of each leaf, modulo 2^32: the same on any mesh."""

    def one(leaf: jax.Array) -> jax.Array:
        words = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        return words.astype(jnp.uint32).sum(dtype=jnp.uint32)

    return jnp.stack([one(leaves[name]) for name in sorted(leaves)])


def save_model(
    directory: epath.PathLike,
    description: dict[str, Any],
    params: Any,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model directory; another one that is there is replaced only when this one is whole.

    With several processes all of them call this.

    Args:
      directory: where to.
      description: JSON-able; `class` and `arguments` at least.
      params: the module or tree of parameters.
      beside: contents of other files of the directory by name.
    """
    directory = paths.absolute(directory)
    flat, beside = flatten(params), beside or {}
    content = dict(description, format=FORMAT, fingerprint=fingerprint(flat, beside))
    content = json.loads(json.dumps(content))
    there = (directory / "model.json").exists() and read_description(directory) == content
    if processes.total(there):
        return
    # The same name in every process.
    fresh = swap.beside(directory, content["fingerprint"])
    if processes.first() and fresh.exists():
        fresh.rmtree()
    processes.wait("room for the model")
    ocp.save(fresh / "params", flat)
    if processes.first():
        for name, data in beside.items():
            (fresh / name).write_bytes(data)
        write_json(fresh / "model.json", content)
        swap.replace(fresh, directory, "model.json")
    processes.wait("model is saved")


def read_description(directory: epath.PathLike) -> dict[str, Any]:
    """`model.json` of a model directory.

    Raises:
      InputError: no model there, one of a later format, or a damaged file; names the field.
    """
    path = epath.Path(directory) / "model.json"
    if not path.exists():
        message = f"{directory} is not a model directory: it has no model.json"
        if whole := swap.unfinished(paths.absolute(directory), "model.json"):
            message += (
                f". Its replacement was interrupted: {whole} is whole; run the command that "
                "writes it again, or use that one"
            )
        raise InputError(message)
    description = read_json(path, {"format": int})
    if description["format"] != FORMAT:
        raise InputError(f"{path} has format {description['format']}, this version reads {FORMAT}")
    there = {name: kind for name, kind in _OPTIONAL.items() if name in description}
    check_object(description, {"class": str, "arguments": dict, **there}, str(path))
    for name in ("tokenizer", "encoder"):
        if description.get(name):  # what the model depends on, by place and fingerprint
            expected: dict[str, Types] = {"path": str, "fingerprint": str}
            check_object(description[name], expected, f"{path}: field {name!r}")
    for name in description.get("class_names", ()):
        if not isinstance(name, str):
            raise InputError(f"{path}: field 'class_names' holds {name!r}, expected texts")
    return description


_OPTIONAL: dict[str, Types] = {
    **dict(kind=str, fingerprint=str, tokenizer=dict, encoder=dict, class_names=list)
}


def code_of(directory: epath.PathLike) -> str:
    """The version of the code that saved the newest checkpoint of a directory, or ""."""
    directory = epath.Path(directory)
    there = directory.iterdir() if directory.exists() else ()
    steps = [int(path.name) for path in there if path.name.isdecimal()]
    if not steps:
        return ""
    try:
        return str((ocp.metadata(directory / str(max(steps))).custom_metadata or {})["code"])
    except Exception:  # Orbax reports damage in many ways; the run may also be saving right now
        return ""


def count_parameters(directory: epath.PathLike) -> int | None:
    """Of a model directory, without reading them; None where it cannot be told."""
    try:
        arrays = ocp.metadata(epath.Path(directory) / "params").metadata
        return sum(math.prod(array.shape) for array in arrays.values())
    except Exception:  # as above
        return None


def load_params(
    directory: epath.PathLike,
    like: Tree,
    expected: str = "",
    beside: Mapping[str, bytes] | None = None,
) -> Tree:
    """The parameters of a model directory in the shape of `like` (arrays or shapes), on one device.

    A warning names those that are not finite.

    Args:
      directory: of the model.
      like: names, shapes and dtypes.
      expected: the fingerprint that model.json records; "": it is not compared.
      beside: contents of the other files that count in it.

    Raises:
      InputError: the parameters cannot be read, or are not those of `like` or of the fingerprint.
    """
    shapes = flatten(like)
    flat = _read_params(directory, shapes)
    if expected:
        found = fingerprint(flat, beside)
        if found != expected:
            files = ", ".join(["params", *sorted(beside or {})])
            raise InputError(
                f"{directory} is damaged or was changed: its files ({files}) have the fingerprint "
                f"{found}, but its model.json says {expected}; copy or convert the model anew "
                "(training writes its own again once the directory is removed), or read it as it "
                "is with --noverify (sample, evaluate) or load(..., verify=False)"
            )
    _warn_of_what_is_not_finite(directory, flat)
    device = jax.local_devices()[0]
    placed = {
        name: jax.device_put(np.asarray(flat.pop(name), leaf.dtype), device)
        for name, leaf in shapes.items()
    }
    return unflatten(like, placed)


def _read_params(directory: epath.PathLike, shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values as they are stored, in the host's memory, where they can be checked."""
    path = epath.Path(directory) / "params"
    if not path.is_dir():
        raise InputError(f"{directory} is not whole: it has no directory params")
    like = {name: np.empty(0, leaf.dtype) for name, leaf in shapes.items()}
    try:
        with _without_echoes():
            flat = ocp.load(path, abstract_state=like)
    except MemoryError:
        raise
    # Orbax and TensorStore report damage in many ways, bare exceptions among them.
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(
            f"{directory} does not hold what its model.json says, or is damaged: {told}"
        ) from error
    for name, leaf in shapes.items():
        if flat[name].shape != leaf.shape:
            raise InputError(
                f"{directory} does not hold what its model.json says: {name} is of shape "
                f"{flat[name].shape}, expected {leaf.shape}"
            )
    return dict(flat)


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
    """Keep from the terminal what follows where Orbax fails to read.

    It gives up at the first tensor that cannot be read; each of the others that it had begun to
    read then prints a traceback, by asyncio when it is collected and by TensorStore when it ends.
    """
    asyncio_log = logging.getLogger("asyncio")
    level, printed = asyncio_log.level, io.StringIO()
    asyncio_log.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stderr(printed):
            try:
                yield
            except BaseException:
                before = -1
                while before != (before := printed.tell()):
                    time.sleep(0.2)
                gc.collect()
                raise
    finally:
        asyncio_log.setLevel(level)
    sys.stderr.write(printed.getvalue())


def _warn_of_what_is_not_finite(directory: epath.PathLike, flat: Mapping[str, np.ndarray]) -> None:
    # A sum reads the values at the memory's speed; it may overflow though all of them are finite.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = {name: np.sum(value, dtype=np.float32) for name, value in flat.items()}
    suspects = [name for name, value in sums.items() if not np.isfinite(value)]
    wrong = {name: int((~np.isfinite(flat[name])).sum()) for name in suspects}
    found = [f"{name} ({count:,} of {flat[name].size:,})" for name, count in wrong.items() if count]
    if found:
        more = f" and {len(found) - 4} more tensors" if len(found) > 4 else ""
        log.warning(
            "%s has weights that are not finite (NaN or infinity), which draw or measure nothing "
            "of use: %s%s",
            directory,
            ", ".join(found[:4]),
            more,
        )


def read_beside(directory: epath.PathLike, name: str) -> bytes:
    """One of the other files of a model directory; InputError where it is not there."""
    path = epath.Path(directory) / name
    if not path.exists():
        raise InputError(f"{directory} is not whole: it has no {name}")
    return path.read_bytes()


def fingerprint(params: Any, beside: Mapping[str, bytes] | None = None) -> str:
    """Sixteen hex digits that name the parameters' values, whatever their order in memory.

    The contents of the files `beside` them count too.
    """
    digest = hashlib.sha256()
    flat = params if isinstance(params, dict) else flatten(params)
    for name in sorted(flat):
        value = processes.whole(flat[name])
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    for name, data in sorted((beside or {}).items()):
        digest.update(f"{name} {len(data)}".encode() + data)
    return digest.hexdigest()[:16]

"""Training checkpoints, through Orbax: the state as a flat dict, with checksums and notes.

The data position is the step itself (see data/pipeline.py).
"""

import logging
import uuid
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from maskgil_jax.pretrained.kept_checkpoints import CHECKSUMS
from maskgil_jax.runtime import array_files, paths, processes, sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.trees import Tree, flatten, unflatten

log = logging.getLogger("maskgil_jax")


class Checkpoints:
    """The training checkpoints of one work directory, saved in the background.

    A context: leaving it, by whatever way, waits for what is being saved. With several processes
    all of them call every method.
    """

    def __init__(
        self, directory: epath.Path, newest: int, kept: Collection[int], about: dict[str, Any]
    ):
        """Open the directory, which is made if needed.

        Args:
          directory: of the checkpoints.
          newest: how many of the newest stay.
          kept: steps whose checkpoints stay for good.
          about: JSON-able, kept in each checkpoint: the config, the version of the code, and what a
            model.json would say of the network (see pretrained/kept_checkpoints.py).
        """
        training = ocp.training
        policies = training.preservation_policies
        preserved = [policies.LatestN(newest), policies.CustomSteps(sorted(kept))]
        self._directory, self._about = directory, about
        self._newest, self._kept = newest, kept
        self._checkpointer = training.Checkpointer(
            directory,
            # The loop decides when; Orbax's default policy may skip a save that it is asked for.
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(preserved),
            cleanup_tmp_directories=True,  # left by a process that was killed while saving
            context=array_files.orbax_context(),
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

    @property
    def useful_seconds(self) -> float | None:
        """Of the steps up to the newest checkpoint (see goodput.py); None: it does not say it."""
        if self.latest is None:
            return 0.0
        noted = self._note_of(self.latest, "useful_seconds")
        return float(noted) if noted else None

    def save(self, step: int, state: Any, *, weight_norm: float, useful_seconds: float) -> None:
        """Begin to save, once the save before is done; nothing if the step is already there.

        Args:
          step: of the state.
          state: arrays.
          weight_norm: of all trained weights, kept beside them.
          useful_seconds: in the steps up to this one (see goodput.py), kept too.

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
        flat = flatten(state)
        numbers = {"weight_norm": str(weight_norm), "useful_seconds": str(useful_seconds)}
        try:
            self._saving = self._checkpointer.save_async(
                step, flat | {CHECKSUMS: _checksums(flat)}, custom_metadata=self._about | numbers
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
        mesh = jax.tree.leaves(flat)[0].sharding.mesh
        flat[CHECKSUMS] = jax.ShapeDtypeStruct(
            (len(flat),), np.uint32, sharding=sharding.replicated(mesh)
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
            f"{self._directory}: no checkpoint can be read (see below). Choose another work "
            f"directory, or move this directory away to train from the start:\n{reasons}"
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
        saved = np.asarray(leaves.pop(CHECKSUMS))
        wrong = np.asarray(_checksums(leaves)) != saved
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
        replaced = [step for step in steps[: -self._newest] if step not in self._kept]
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


@jax.jit
def _checksums(leaves: dict[str, jax.Array]) -> jax.Array:
    """`kept_checkpoints.checksum` of each leaf: the same on any mesh."""

    def one(leaf: jax.Array) -> jax.Array:
        words = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        return words.astype(jnp.uint32).sum(dtype=jnp.uint32)

    return jnp.stack([one(leaves[name]) for name in sorted(leaves)])


def code_of(directory: epath.PathLike) -> str:
    """The version of the code that saved the newest checkpoint of a directory, or ""."""
    directory = epath.Path(directory)
    paths_in = directory.iterdir() if directory.exists() else ()
    steps = [int(path.name) for path in paths_in if path.name.isdecimal()]
    if not steps:
        return ""
    try:
        return str((ocp.metadata(directory / str(max(steps))).custom_metadata or {})["code"])
    except Exception:  # Orbax reports damage in many ways; the run may also be saving right now
        return ""

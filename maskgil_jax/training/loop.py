"""The training loop of both stages: batches in, checkpoints, numbers and pictures out."""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from etils import epath
from flax import nnx
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from maskgil_jax.data import pipeline
from maskgil_jax.data.images.buckets import Compilations, Size
from maskgil_jax.data.order import Order, Pool, examples_in
from maskgil_jax.data.records.image_records import Named
from maskgil_jax.runtime import sharding, version
from maskgil_jax.runtime.errors import InputError, Interrupted
from maskgil_jax.training import optimizer
from maskgil_jax.training.checkpoints import Checkpoints
from maskgil_jax.training.interrupt import StopRequest
from maskgil_jax.training.skipped_steps import Skips, weight_norm
from maskgil_jax.training.unreadable_images import UnreadableImages
from maskgil_jax.training.writer import Writer

log = logging.getLogger("maskgil_jax")

Batch = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes.

    Attributes:
      step: int32 [], optimizer steps done, which is the data position too.
      model: the trained network, or a dict of networks.
      optimizer: optax state of the same structure.
      ema: averaged weights, or None.
      memory: what else the next step needs to know of those before, or None.
      skipped: int32 [2], steps that were skipped: in all, and the last ones in a row.
    """

    step: jax.Array
    model: Any
    optimizer: Any
    ema: Any
    memory: Any = None
    skipped: jax.Array = dataclasses.field(default_factory=lambda: jnp.zeros(2, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage brings to the loop.

    Attributes:
      init: (start_from) -> TrainState, pure.
      start_from: trained networks that `init` takes, or None.
      step: (state, frozen, batch) -> (state, metrics), pure; leaves the average of the weights to
        the loop; metrics are scalars, `loss` and `gradient_norm` among them.
      load: (index, rng) -> example (see data/pipeline.py).
      parts: of the data (see data/pipeline.py).
      name_of_example: index -> what messages call it, and why it cannot be read, if so.
      frozen: what the step reads and never changes.
      to_average: (state.model) -> the part of it that `state.ema` follows.
      pictures: (state) -> {name: uint8 [H, W, 3]}; called by all processes, the first one's count.
      grids: (height, width) in tokens of each bucket of the data.
    """

    init: Callable[[Any], TrainState]
    start_from: Any
    step: Callable[[TrainState, Any, Batch], tuple[TrainState, dict[str, jax.Array]]]
    load: Callable[[int, np.random.Generator], pipeline.Example]
    parts: Sequence[Pool]
    name_of_example: Callable[[int], Named]
    frozen: Any
    to_average: Callable[[Any], Any]
    pictures: Callable[[TrainState], dict[str, np.ndarray]]
    grids: Sequence[Size]

    @property
    def examples(self) -> int:
        """Number of examples in all parts."""
        return examples_in(self.parts)


def train(
    stage: Stage, config: ConfigDict, workdir: epath.Path, mesh: jax.sharding.Mesh
) -> TrainState:
    """Train to `config.steps`, from the newest checkpoint in `workdir` if there is one.

    Raises:
      Interrupted: a signal came to a process; the state was saved.
      InputError: too many unreadable images, and the state was saved; too many steps in a row
        that had to be skipped, and the newest checkpoint is from before; or a checkpoint could
        not be written or read.
    """
    # Finds what is wrong before anything is written.
    shapes = jax.eval_shape(stage.init, stage.start_from)
    shardings = sharding.state_shardings(shapes, mesh)
    limit, clock = config.data.bad_image_limit, Clock()
    unreadable = UnreadableImages(stage.load, stage.name_of_example, stage.examples, workdir, limit)
    if complaint := unreadable.too_many():
        raise InputError(complaint)
    about = {"config": json.loads(config.to_json_best_effort()), "code": version.of_code()}
    with (
        Checkpoints(workdir / "checkpoints", config, about) as checkpoints,
        StopRequest() as stop,
    ):
        state = initial_state(stage, shapes, shardings, checkpoints, mesh)
        start = checkpoints.latest or 0
        frozen = jax.device_put(stage.frozen, sharding.state_shardings(stage.frozen, mesh))
        step_fn = jax.jit(
            functools.partial(whole_step, stage.step, stage.to_average, config.ema_decay),
            donate_argnums=0,
            out_shardings=(shardings, None),
        )
        order = Order(stage.parts, config.batch_size, config.seed)
        batches = device_batches(stage, order, config, start, mesh, unreadable, clock)
        skips = Skips(stage.name_of_example, order, config.skips_allowed, checkpoints)
        compilations = Compilations(stage.grids)
        with (
            contextlib.closing(batches),
            Writer(workdir, start_step=start, steps=config.steps) as writer,
        ):
            for step, batch in zip(range(start + 1, config.steps + 1), batches, strict=False):
                bucket = order.bucket(step)
                compilations.note(bucket)
                with jax.set_mesh(mesh):  # for sharding.split_batch
                    state, metrics = step_fn(state, frozen, batch)
                clock.seen(config.batch_size, math.prod(stage.grids[bucket]))
                writer.advance(step)
                last = step == config.steps
                skips.note(step, metrics["skipped_in_a_row"], state.model, last=last)
                if last or step % config.log_every == 0:
                    values = {name: float(v) for name, v in jax.device_get(metrics).items()}
                    values |= clock.rates()
                    values["unreadable_images"] = len(unreadable.seen)
                    writer.scalars(step, values)
                signum, too_many = 0, ""
                if last or step % stop.every == 0:
                    signum, too_many = stop.agreed(), unreadable.too_many()
                if last or step % config.checkpoint_every == 0 or signum or too_many:
                    norm = float(weight_norm(state.model))
                    checkpoints.save(step, state, weight_norm=norm)
                if too_many or signum:
                    checkpoints.wait()  # so that what the message says is true
                if (last or too_many or signum) and unreadable.by_kind:
                    log.warning("skipped, since they cannot be read: %s", unreadable.by_kind)
                if too_many:
                    raise InputError(f"{too_many}; a checkpoint of step {step} is saved")
                if signum:
                    raise Interrupted(
                        signum, f"stopped at step {step}; run the same command to go on"
                    )
                if last or step % config.pictures_every == 0:
                    with clock.paused():
                        writer.pictures(step, stage.pictures(state))
    return state


def whole_step(
    step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    to_average: Callable[[Any], Any],
    ema_decay: float,
    state: TrainState,
    frozen: Any,
    batch: Batch,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """A stage's step, and the average of its weights.

    A step whose loss or gradients are not finite changes nothing and is counted.
    """
    new, metrics = step(state, frozen, batch)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
    if kept.ema is not None:
        # Of the weights kept, so that the compiler makes old, new and average in one pass.
        ema = optimizer.average(kept.ema, to_average(kept.model), ema_decay, state.step)
        ema = jax.tree.map(lambda a, b: jnp.where(finite, a, b), ema, kept.ema)
        kept = dataclasses.replace(kept, ema=ema)
    in_all, in_a_row = state.skipped
    skipped = jnp.stack([in_all + ~finite, jnp.where(finite, 0, in_a_row + 1)])
    metrics |= {"skipped_steps": skipped[0], "skipped_in_a_row": skipped[1]}
    return dataclasses.replace(kept, step=new.step, skipped=skipped), metrics


def initial_state(
    stage: Stage,
    shapes: TrainState,
    shardings: TrainState,
    checkpoints: Checkpoints,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """The newest checkpoint, or else a fresh state; laid out by `shardings` from the start."""
    if checkpoints.latest is not None:
        like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        state = checkpoints.restore(like)
        log.info("resuming from step %d", checkpoints.latest)
        return state
    start_from = jax.device_put(stage.start_from, sharding.replicated(mesh))
    state = jax.jit(stage.init, out_shardings=shardings)(start_from)
    overview(state.model)
    return state


def device_batches(
    stage: Stage,
    order: Order,
    config: ConfigDict,
    start: int,
    mesh: jax.sharding.Mesh,
    unreadable: UnreadableImages,
    clock: "Clock",
) -> Generator[Batch, None, None]:
    """The batches after step `start`, as global arrays on the mesh."""
    on_mesh, size = NamedSharding(mesh, sharding.BATCH), config.batch_size

    def to_mesh(rows: np.ndarray) -> jax.Array:
        shape = (size, *rows.shape[1:])
        return jax.make_array_from_process_local_data(on_mesh, rows, shape)

    batches = pipeline.batches(
        stage.load,
        order,
        start_step=start,
        rows=sharding.rows_of_process(size, mesh),
        threads=config.data.threads,
        workers=config.data.workers,
    )
    with contextlib.closing(batches):
        while True:
            with clock.waiting():
                batch = next(batches)
            unreadable.note(batch.pop("unreadable", None))
            yield jax.tree.map(to_mesh, batch)


def overview(model: Any) -> None:
    """Log a table of the parameters of each network, and their exact number."""
    for name, network in model.items() if isinstance(model, dict) else [("model", model)]:
        table = parameter_overview.get_parameter_overview(
            nnx.to_pure_dict(nnx.state(network)), include_stats=False
        )
        total = sum(leaf.size for leaf in jax.tree.leaves(network))
        log.info("%s: %s parameters\n%s", name, f"{total:,}", table)


class Clock:
    """Time per step since the last log, and how much of it went into waiting for data."""

    def __init__(self) -> None:
        self._steps, self._examples, self._tokens = 0, 0, 0
        self._time, self._waited = time.monotonic(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this context counts as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in this context does not count."""
        start = time.monotonic()
        yield
        self._time += time.monotonic() - start

    def seen(self, examples: int, tokens: int) -> None:
        """Take in a step of so many examples, of so many tokens each."""
        self._steps += 1
        self._examples += examples
        self._tokens += examples * tokens

    def rates(self) -> dict[str, float]:
        """Rates over the steps since the last call."""
        now = time.monotonic()
        seconds = now - self._time
        values = {
            "step_seconds": seconds / self._steps,
            "data_wait_seconds": self._waited / self._steps,
            "examples_per_second": self._examples / seconds,
            "tokens_per_second": self._tokens / seconds,
        }
        self._steps, self._examples, self._tokens = 0, 0, 0
        self._time, self._waited = now, 0.0
        return values

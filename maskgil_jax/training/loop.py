"""The training loop of both stages: batches in, checkpoints, numbers and pictures out.

with loop.open_run(init, start_from, dataset, config, workdir, mesh, describe) as (run, state):
    for number, state in loop.train(run, state, step, frozen):
        run.writer.pictures(number, pictures_of(state))
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from etils import epath
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from maskgil_jax.data import pipeline
from maskgil_jax.data.images.buckets import Compilations, Size
from maskgil_jax.data.order import Order
from maskgil_jax.pretrained import kept_checkpoints
from maskgil_jax.runtime import compiler_options, sharding, version
from maskgil_jax.runtime.errors import InputError, Interrupted
from maskgil_jax.training import chip_use, traced_once, trackers
from maskgil_jax.training.checkpoints import Checkpoints
from maskgil_jax.training.chip_use import ChipUse, StepFlops
from maskgil_jax.training.clock import Clock
from maskgil_jax.training.dataset import Dataset
from maskgil_jax.training.goodput import Goodput
from maskgil_jax.training.interrupt import StopRequest
from maskgil_jax.training.kept_steps import kept_steps
from maskgil_jax.training.skipped_steps import Skips, weight_norm
from maskgil_jax.training.trace import Trace, steps_of
from maskgil_jax.training.train_state import Batch, Metrics, TrainState
from maskgil_jax.training.unreadable_images import UnreadableImages
from maskgil_jax.training.writer import Writer

log = logging.getLogger("maskgil_jax")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has open, and what stays the same while it trains.

    Attributes:
      config: of the stage.
      mesh: of all devices.
      dataset: that is trained on.
      shardings: how the state is laid out on the mesh, a TrainState of NamedShardings.
      start_step: steps that were done before.
      checkpoints: of the work directory.
      kept: steps whose checkpoints are kept for good.
      writer: of numbers and pictures.
      goodput: of all starts of the run.
      stop: whether somebody wants the run to stop.
      unreadable: the images that cannot be read.
      trace: of the steps that are to be traced.
    """

    config: ConfigDict
    mesh: Mesh
    dataset: Dataset
    shardings: TrainState
    start_step: int
    checkpoints: Checkpoints
    kept: frozenset[int]
    writer: Writer
    goodput: Goodput
    stop: StopRequest
    unreadable: UnreadableImages
    trace: Trace


@contextlib.contextmanager
def open_run(
    init: Callable[[Any], TrainState],
    start_from: Any,
    dataset: Dataset,
    config: ConfigDict,
    workdir: epath.Path,
    mesh: Mesh,
    describe: Callable[[TrainState], dict[str, Any]],
) -> Iterator[tuple[Run, TrainState]]:
    """A run, and its state: that of the newest checkpoint in `workdir`, or a fresh one.

    Args:
      init: (start_from) -> a fresh state, pure.
      start_from: trained networks that `init` takes, or None.
      dataset: to train on.
      config: of the stage.
      workdir: made before.
      mesh: of all devices.
      describe: (a state of shapes) -> what the model.json of its network would say, JSON-able; kept
        in the checkpoints, so that each of them can be loaded.

    Raises:
      InputError: too many unreadable images, or a checkpoint could not be written or read.
    """
    # Finds what is wrong before anything is written.
    shapes = jax.eval_shape(init, start_from)
    shardings = sharding.state_shardings(shapes, mesh)
    unreadable = UnreadableImages(dataset, workdir, config.data.bad_image_limit)
    if complaint := unreadable.too_many():
        raise InputError(complaint)
    about = {"config": json.loads(config.to_json_best_effort()), "code": version.of_code()}
    about[kept_checkpoints.MODEL] = json.loads(json.dumps(describe(shapes)))
    kept, newest = kept_steps(config, len(dataset)), config.keep_checkpoints
    saved = Checkpoints(workdir / "checkpoints", newest, kept, about)
    with saved as checkpoints, StopRequest() as stop:
        if checkpoints.latest is None:
            state = _fresh_state(init, start_from, shardings, mesh)
        else:
            state = _restored_state(checkpoints, shapes, shardings)
        start, goodput = checkpoints.latest or 0, Goodput(workdir, checkpoints.useful_seconds)
        tracker = trackers.named(config.tracker)
        known = dict(steps=config.steps, tracker=tracker, config=about["config"])
        traced = steps_of(config.trace, config.steps)
        with (
            Writer(workdir, start_step=start, **known) as writer,
            Trace(traced, start, workdir) as trace,
        ):
            run = Run(
                *(config, mesh, dataset, shardings, start),
                checkpoints=checkpoints,
                kept=kept,
                writer=writer,
                goodput=goodput,
                stop=stop,
                unreadable=unreadable,
                trace=trace,
            )
            yield run, state


def train(
    run: Run,
    state: TrainState,
    step: Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]],
    frozen: Any,
    model_flops: Callable[[Size], int] | None = None,
) -> Iterator[tuple[int, TrainState]]:
    """Train to `config.steps`; yields (number, state) of the steps that pictures are due of.

    Args:
      run, state: from `open_run`. States are donated, those yielded once the next is asked for.
      step: (state, frozen, batch) -> (state, metrics), pure; metrics are scalars.
      frozen: what the step reads and never changes.
      model_flops: of a step on a grid, for MFU; None: those of the step as it is traced.

    Raises:
      Interrupted: a signal came to a process; the state was saved.
      InputError: see `_reason_to_stop`, Skips and Checkpoints.
    """
    config, clock = run.config, Clock()
    frozen = jax.device_put(frozen, sharding.state_shardings(frozen, run.mesh))
    (leaves, of_state), (fixed, of_frozen) = jax.tree.flatten(state), jax.tree.flatten(frozen)
    step_fn = _compiled(step, of_state, of_frozen, run)
    order = Order(run.dataset.pools, config.batch_size, config.seed)
    skips = Skips(run.dataset.name_of, order, config.skips_allowed, run.checkpoints)
    flops, use = StepFlops(step_fn, model_flops), ChipUse(run.mesh)
    with contextlib.closing(_device_batches(run, order, clock)) as batches:
        for number, grid, batch in batches:
            compiles = clock.lost() if grid not in flops else contextlib.nullcontext()
            with compiles, jax.set_mesh(run.mesh):  # for sharding.split_batch
                work = flops.of(grid, leaves, fixed, batch)
                with run.trace.step(number):
                    leaves, metrics = step_fn(leaves, fixed, batch)
            run.trace.done(number, metrics)
            clock.count(config.batch_size, math.prod(grid), work)
            run.writer.advance(number)
            last = number == config.steps
            state_after = functools.partial(jax.tree.unflatten, of_state, leaves)
            skips.note(number, metrics["skipped_in_a_row"], state_after, last=last)
            if last or number % config.log_every == 0:
                run.writer.scalars(number, _values(run, metrics, clock, use))
            check = last or number % run.stop.every == 0
            reason = _reason_to_stop(run, number) if check else None
            due = number in run.kept or number % config.checkpoint_every == 0
            if last or reason or due:
                _save(run, number, state_after(), clock)
            if last or reason:
                run.unreadable.log_kinds()
            if reason:
                run.checkpoints.wait()  # so that what the message says is true
                raise reason
            if last or number % config.pictures_every == 0:
                with clock.paused():
                    yield number, state_after()


def _compiled(
    step: Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]],
    of_state: Any,
    of_frozen: Any,
    run: Run,
) -> Any:
    """The step, jitted on the leaves of its trees, whose structures are given.

    NNX modules are flattened by Python, several times a step and for milliseconds, which two cores
    that train a small network do not have: the program takes the leaves and knows the trees.
    """
    options = compiler_options.options_for(run.mesh.devices.flat[0], run.config.compiler_options)
    return jax.jit(
        traced_once.partial(_train_step, step, of_state, of_frozen),
        donate_argnums=0,
        out_shardings=(jax.tree.leaves(run.shardings), None),
        compiler_options=options or None,
    )


def _train_step(
    step: Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]],
    of_state: Any,
    of_frozen: Any,
    leaves: list[jax.Array],
    fixed: list[jax.Array],
    batch: Batch,
) -> tuple[list[jax.Array], Metrics]:
    """`step` on the leaves of a state and of what is frozen; gives the leaves of the next state."""
    state, frozen = jax.tree.unflatten(of_state, leaves), jax.tree.unflatten(of_frozen, fixed)
    state, metrics = step(state, frozen, batch)
    return jax.tree.leaves(state), metrics


def _values(run: Run, metrics: Metrics, clock: Clock, use: ChipUse) -> dict[str, float]:
    """What is logged of a step: the means and counts of the step itself, rates, and use."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    values |= use.of(clock.rates()) | chip_use.peak_memory()
    goodput = run.goodput.share(clock.useful_seconds)
    return values | {"goodput": goodput, "unreadable_images": len(run.unreadable.seen)}


def _save(run: Run, number: int, state: TrainState, clock: Clock) -> None:
    """Begin to save the state after this step."""
    jax.block_until_ready(state.step)  # until here the step runs
    useful = run.goodput.useful_seconds(clock.useful_seconds)
    with clock.lost():
        norm = float(weight_norm(state.model))
        run.checkpoints.save(number, state, weight_norm=norm, useful_seconds=useful)


def _reason_to_stop(run: Run, number: int) -> InputError | Interrupted | None:
    """Why the run stops after this step, if it does: a signal, or too many unreadable images.

    All processes call this, and all get a reason or none does.
    """
    signum, complaint = run.stop.agreed(), run.unreadable.too_many()
    if complaint:
        return InputError(f"{complaint}; a checkpoint of step {number} is saved")
    if signum:
        return Interrupted(signum, f"stopped at step {number}; run the same command to go on")
    return None


def _restored_state(
    checkpoints: Checkpoints, shapes: TrainState, shardings: TrainState
) -> TrainState:
    """The newest checkpoint, laid out by `shardings` from the start."""
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )
    state = checkpoints.restore(like)
    log.info("resuming from step %d", checkpoints.latest)
    return state


def _fresh_state(
    init: Callable[[Any], TrainState], start_from: Any, shardings: TrainState, mesh: Mesh
) -> TrainState:
    """The state before the first step, laid out by `shardings` from the start."""
    start_from = jax.device_put(start_from, sharding.replicated(mesh))
    state = jax.jit(init, out_shardings=shardings)(start_from)
    _log_parameters(state.model)
    return state


def _log_parameters(model: Any) -> None:
    """Log a table of the parameters of each network, and their exact number."""
    for name, network in model.items() if isinstance(model, dict) else [("model", model)]:
        table = parameter_overview.get_parameter_overview(
            nnx.to_pure_dict(nnx.state(network)), include_stats=False
        )
        total = sum(leaf.size for leaf in jax.tree.leaves(network))
        log.info("%s: %s parameters\n%s", name, f"{total:,}", table)


def _device_batches(
    run: Run, order: Order, clock: Clock
) -> Generator[tuple[int, Size, Batch], None, None]:
    """The steps that are left: the number, the grid, and the batch as global arrays on the mesh."""
    config, grids, compilations = run.config, run.dataset.grids, Compilations(run.dataset.grids)
    on_mesh, size = NamedSharding(run.mesh, sharding.BATCH), config.batch_size

    def to_mesh(rows: np.ndarray) -> jax.Array:
        shape = (size, *rows.shape[1:])
        return jax.make_array_from_process_local_data(on_mesh, rows, shape)

    batches = pipeline.batches(
        run.dataset.load,
        order,
        start_step=run.start_step,
        rows=sharding.rows_of_process(size, run.mesh),
        threads=config.data.threads,
        workers=config.data.workers,
    )
    with contextlib.closing(batches):
        for number in range(run.start_step + 1, config.steps + 1):
            with clock.waiting():
                batch = next(batches)
            run.unreadable.note(batch.pop("unreadable", None))
            bucket = order.bucket(number)
            compilations.note(bucket)
            yield number, grids[bucket], jax.tree.map(to_mesh, batch)

"""What the runs of a study cost: FLOPs that are counted, seconds that their first steps tell."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from maskgil_jax.pretrained import networks
from maskgil_jax.training import step_shapes
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import tables
from maskgil_jax.workflows.study_checks import Networks
from maskgil_jax.workflows.study_plan import Cell, Plan
from maskgil_jax.workflows.trained_runs import Run


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
      parameters: of the network; None: it trains none.
      flops: of all its steps; None: it trains none.
      done: share of the steps that are done.
      seconds_left: of training; None: nothing that was logged says it.
    """

    parameters: int | None
    flops: int | None
    done: float
    seconds_left: float | None


def costs(plan: Plan, known: Networks, runs: Sequence[Run]) -> dict[str, Cost]:
    """What each run takes; seconds by its own log, or else by the rate of a run of its stage."""
    flops = {run.name: flops_of(run, known.get(run.name)) for run in plan.runs.values()}
    rates: dict[str, float] = {}
    for run in plan.runs.values():
        work, seconds = flops[run.name], seconds_per_step(run)
        if work and seconds:
            rates[run.config.stage] = work / run.config.steps / seconds
    return {run.name: _cost(run, known.get(run.name), flops[run.name], rates) for run in runs}


def _cost(run: Run, network: Any, flops: int | None, rates: Mapping[str, float]) -> Cost:
    if flops is None:
        return Cost(None, None, float(run.is_finished()), None)
    left = 0 if run.is_finished() else run.config.steps - run.steps_done
    own, rate = seconds_per_step(run), rates.get(run.config.stage)
    seconds: float | None = left * own if own else None
    if seconds is None and rate:
        seconds = left * flops / run.config.steps / rate
    shapes = networks.shapes_of(network, "config.model")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return Cost(parameters, flops, 1 - left / run.config.steps, seconds)


def flops_of(run: Run, network: Any) -> int | None:
    """Of all training steps of a run; None of one that trains nothing."""
    if run.config.stage == "codes":
        return None
    if run.config.stage == "generator":
        shapes = step_shapes.of_generator(run.config, network)
    else:
        shapes = step_shapes.of_tokenizer(run.config)
    return shapes.flops(run.config) * int(run.config.steps)


def seconds_per_step(run: Run) -> float | None:
    """Of the steps of a run that are logged, the median; None before the first."""
    seconds = [line["step_seconds"] for line in read_log(run.directory) if "step_seconds" in line]
    return statistics.median(seconds) if seconds else None


def described(plan: Plan, costs_: Mapping[str, Cost], cells: Sequence[Cell]) -> str:
    """The runs and cells that there are to do, as two tables in Markdown."""
    runs = [
        {
            "run": name,
            "cells": sum(name in (*cell.runs, cell.codes) for cell in cells),
            "parameters": cost.parameters or "",
            "steps": plan.runs[name].config.get("steps", ""),
            "training_flops": cost.flops or "",
            "done": cost.done,
            "seconds_left": "" if cost.flops is None else _seconds(cost.seconds_left),
        }
        for name, cost in costs_.items()
    ]
    shown = [{"cell": cell.name, "run": cell.runs[-1], "step": cell.step} for cell in cells]
    named = [cost for cost in costs_.values() if cost.flops]
    total = sum(cost.flops or 0 for cost in named)
    left = [cost.seconds_left for cost in named]
    known = [seconds for seconds in left if seconds is not None]
    rest = "" if len(known) == len(left) else f", of {len(left) - len(known)} runs not known yet"
    return "\n".join(
        [
            tables.as_markdown(runs, RUN_COLUMNS),
            tables.as_markdown(shown, {name: str for name in ("cell", "run", "step")}),
            f"{len(runs)} runs, {total:.3g} training FLOPs, {sum(known):,.0f} seconds of training "
            f"left{rest}; {len(cells)} cells of {plan.config.measure.num:,} images each",
        ]
    )


def _seconds(value: float | None) -> str:
    return "known after its first steps" if value is None else f"{value:,.0f}"


def _number(form: str) -> Any:
    return lambda value: value if isinstance(value, str) else form.format(value)


RUN_COLUMNS = {
    "run": str,
    "cells": str,
    "parameters": _number("{:,}"),
    "steps": str,
    "training_flops": _number("{:.3g}"),
    "done": "{:.0%}".format,
    "seconds_left": str,
}

"""A family of runs: laws of their loss, with tables and a plot, and what plans say beside them."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.generation import figures
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, check_object, read_json, write_bytes, write_json
from maskgil_jax.workflows import scaling_laws, tables
from maskgil_jax.workflows.scaling_laws import Fit, Number

log = logging.getLogger("maskgil_jax")

Row = dict[str, Any]

NOTES = {
    "parameters": "all of the network, tables and head included",
    "tokens": "image tokens seen in training: steps x images a step x tokens of an image, the same "
    "image counted again each time",
    "training_flops": "of matrix products, in one forward and two backward passes over them, a "
    "multiply and an add as 2; attention of all pairs; norms, look-ups and recomputation not",
    "validation_loss": "mean of -log p in nats of masked tokens (arccos masks, the same for all) "
    "given the visible, or of each token given those before it in a causal model; no smoothing",
    "laws": "loss = E + A / parameters^a + B / tokens^b of all runs; loss = E + K / "
    "training_flops^c of the frontier: runs that no other with as little compute or less beats",
    "intervals": f"{scaling_laws.LEVEL:.0%}, by a parametric bootstrap: of independent noise "
    "around a law that holds, not of other seeds, schedules or learning rates",
    "determined": "no: the exponent's interval is as wide as its value, or reaches the largest "
    "allowed, so that the law should not be extended",
}


def columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    """Float64 [len(rows), len(names)]."""
    return np.array([[row[name] for name in names] for row in rows], np.float64)


def read_plans(path: str) -> list[Row]:
    """What a file of maskgil_jax.plan says of training, a row for each topology.

    Raises:
      InputError: no such file, or another one.
    """
    try:
        plans = read_json(epath.Path(path).expanduser(), {"plans": list})["plans"]
        for number, plan in enumerate(plans):
            _check_plan(plan, f"{path}: plan {number}")
    except FileNotFoundError:
        raise InputError(f"plans={path}: there is no such file; expected {_PLAN}") from None
    except InputError as error:
        raise InputError(f"plans={path}: expected {_PLAN}; {error}") from None
    return [
        {
            "plan": epath.Path(plan["config"]).stem,
            "topology": plan["topology"],
            "chips": plan["chips"],
            "parameters": plan["parameters"],
            "tokens": plan["steps"] * plan["batch_size"] * plan["tokens_per_example"],
            "training_flops": plan["steps"] * plan["model_flops_per_step"],
            **{name: plan[name] for name in _ESTIMATED if name in plan},
        }
        for plan in plans
    ]


_PLAN = "the output of maskgil_jax.plan"
_COUNTED: dict[str, Types] = {
    **dict(chips=int, parameters=int, steps=int, batch_size=int, tokens_per_example=int),
    **dict(model_flops_per_step=float),
}
_ESTIMATED = ("mfu", "tokens_per_second", "chip_hours")  # a plan that does not fit has none


def _check_plan(plan: Any, where: str) -> None:
    check_object(plan, {"config": str, "topology": str, **_COUNTED}, where)
    estimated = {name: float for name in _ESTIMATED if name in plan}
    check_object(plan, estimated, where)
    for name in (*_COUNTED, *estimated):
        if not 0 < plan[name] < _MOST:
            raise InputError(f"{where}: field {name!r} is not a positive, finite number")


_MOST = 1e40  # far beyond any plan, while products of three are still floats


def write_study(
    rows: Sequence[Row],
    plans: Sequence[Row],
    output: epath.PathLike,
    *,
    validation: str,
    seed: int,
) -> None:
    """Fit the laws and write OUTPUT/scaling.{json,csv,md,png}; the csv holds the runs.

    Args:
      rows: of runs: run, size, steps, parameters, tokens, training_flops, validation_loss ...
      plans: as read_plans gives them.
      output: directory, made if needed.
      validation: what the loss is of.
      seed: of the intervals.

    Raises:
      InputError: too few runs for a law of parameters and tokens.
    """
    notes = {"validation": validation} | NOTES
    joint = _fitted(rows, ("parameters", "tokens"), seed)
    best = frontier(rows)
    try:
        compute = _fitted(best, ("training_flops",), seed)
    except InputError as error:
        compute, notes["no law of compute"] = None, f"frontier of {error}"
    fits = [_described("parameters", joint, 0, rows), _described("tokens", joint, 1, rows)]
    if compute:
        fits.append(_described("training_flops", compute, 0, best))
    if plans:
        notes["plans"] = _plans_note(rows, plans, joint.determined)
    if joint.determined:
        plans = [
            plan | {"extended_law": joint.loss((plan["parameters"], plan["tokens"]))._asdict()}
            for plan in plans
        ]
    output = epath.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(
        output / "scaling.json", {"notes": notes, "runs": rows, "fits": fits, "plans": plans}
    )
    write_bytes(output / "scaling.csv", tables.as_csv(rows).encode())
    sections = [tables.as_markdown(rows, RUN_COLUMNS), tables.as_markdown(fits, FIT_COLUMNS)]
    if plans:
        sections.append(tables.as_markdown(plans, PLAN_COLUMNS))
    listed = [f"- {name.replace('_', ' ')}: {text}\n" for name, text in notes.items()]
    sections.append("".join(listed))
    write_bytes(output / "scaling.md", "\n".join(sections).encode())
    _plot(output / "scaling.png", rows, joint, compute)


def frontier(rows: Sequence[Row]) -> list[Row]:
    """The runs that no other with as little compute or less beats, by compute."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["training_flops"], row["validation_loss"])):
        if not best or row["validation_loss"] < best[-1]["validation_loss"]:
            best.append(row)
    return best


def _fitted(rows: Sequence[Row], of: tuple[str, ...], seed: int) -> Fit:
    losses_P = columns(rows, ["validation_loss"])[:, 0]
    return scaling_laws.fit(columns(rows, of), losses_P, seed)


def _described(variable: str, fit: Fit, i: int, rows: Sequence[Row]) -> Row:
    """A row of the table of fits, of the law's variable i."""
    return {
        "loss_against": variable,
        "runs": len(rows),
        "exponent": fit.exponent(i)._asdict(),
        "factor": fit.factor(i)._asdict(),
        "floor": fit.floor._asdict(),
        "residual": fit.scale,
        "determined": fit.determined,
    }


def _plans_note(rows: Sequence[Row], plans: Sequence[Row], determined: bool) -> str:
    if not determined:
        return (
            "speeds and hours are the TPU compiler's estimates; no loss is given at these sizes, "
            "since the runs do not determine the law"
        )
    further = {
        name: math.log10(max(p[name] for p in plans) / max(row[name] for row in rows))
        for name in ("parameters", "tokens")
    }
    return (
        "speeds and hours are the TPU compiler's estimates. The extended law is not a measurement, "
        "nor a forecast of these models: it is what the runs' law says "
        f"{further['parameters']:.1f} orders of magnitude in parameters and "
        f"{further['tokens']:.1f} in tokens beyond the largest of them, on the runs' own codes "
        "(other tokenizer, codebook and images), never seen twice. Its interval takes the law for "
        "true and holds the uncertainty of its numbers alone"
    )


def _interval(digits: str) -> Callable[[Mapping[str, float]], str]:
    return lambda n: f"{n['value']:{digits}} ({n['low']:{digits}} to {n['high']:{digits}})"


RUN_COLUMNS: dict[str, Callable[[Any], str]] = {
    "run": str,
    "parameters": "{:,}".format,
    "tokens": "{:,}".format,
    "training_flops": "{:.3g}".format,
    "validation_loss": "{:.4f}".format,
    "validation_accuracy": "{:.2%}".format,
}
FIT_COLUMNS: dict[str, Callable[[Any], str]] = {
    "loss_against": lambda name: name.replace("_", " "),
    "runs": str,
    "exponent": _interval(".3f"),
    "factor": _interval(".3g"),
    "floor": _interval(".3f"),
    "residual": "{:.2%}".format,
    "determined": lambda determined: "yes" if determined else "no",
}
PLAN_COLUMNS: dict[str, Callable[[Any], str]] = {
    "plan": str,
    "topology": str,
    "parameters": "{:,}".format,
    "tokens": "{:.3g}".format,
    "training_flops": "{:.3g}".format,
    "mfu": "{:.3f}".format,
    "tokens_per_second": "{:,.0f}".format,
    "chip_hours": "{:,.0f}".format,
    "extended_law": _interval(".2f"),
}


def _plot(path: epath.Path, rows: Sequence[Row], joint: Fit, compute: Fit | None) -> None:
    """Loss against each variable, with the laws and their intervals."""
    # By variable: what the runs of one line share, and the law of a value for a run of that line.
    panels: dict[str, tuple[str, Callable[[float, Row], Number] | None]] = {
        "parameters": ("steps", lambda n, row: joint.loss((n, row["tokens"]))),
        "tokens": ("size", lambda n, row: joint.loss((row["parameters"], n))),
        "training_flops": ("size", None),
    }
    with figures.figure(12, 3.8) as figure:
        panes = figure.subplots(1, len(panels), sharey=True)
        for pane, (variable, (shared, law)) in zip(panes, panels.items(), strict=True):
            _plot_runs(pane, rows, variable, shared, law)
        if compute:
            span = _span(rows, "training_flops")
            _band(panes[-1], span, [compute.loss([n]) for n in span], "black")
        panes[0].set_ylabel("validation loss (nats)")
        figures.save(path, figure)


def _plot_runs(
    pane: Any,
    rows: Sequence[Row],
    variable: str,
    shared: str,
    law: Callable[[float, Row], Number] | None,
) -> None:
    """Runs as points, in one colour those of one value of `shared`, each with its law."""
    from matplotlib import colormaps

    span = _span(rows, variable)
    values = list(dict.fromkeys(row[shared] for row in rows))
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(values)))
    for value, colour in zip(values, colours, strict=True):
        ours = [row for row in rows if row[shared] == value]
        points = columns(ours, (variable, "validation_loss"))
        label = f"{value} steps" if shared == "steps" else value
        pane.plot(*points.T, "o", color=colour, label=label)
        if law:
            _band(pane, span, [law(n, ours[0]) for n in span], colour)
    pane.set(xscale="log", xlabel=variable.replace("_", " "))
    pane.tick_params(axis="x", which="minor", labelbottom=False)  # they would overlap
    pane.legend()


def _span(rows: Sequence[Row], variable: str) -> np.ndarray:
    """Values of a variable, from a little below its smallest to a little above its largest."""
    values = columns(rows, [variable])
    return np.geomspace(values.min() / 1.2, values.max() * 1.2, 40)


def _band(pane: Any, x: np.ndarray, losses: Sequence[Number], colour: Any) -> None:
    """A law as a line, and its interval as a band around it."""
    pane.plot(x, [one.value for one in losses], "-", color=colour, linewidth=1)
    low, high = [one.low for one in losses], [one.high for one in losses]
    pane.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)

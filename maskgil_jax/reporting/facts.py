"""What was trained, and what a reader should know before believing its numbers."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from maskgil_jax.reporting.collect import Run
from maskgil_jax.reporting.results import number, text

# Fact: its place in the config. A dictionary is shown as a whole.
OF_CONFIG = {
    "images a step": "batch_size",
    "data": "data.source",
    "mixture": "data.mixture",
    "image size": "data.image_size",
    "buckets": "data.buckets",
    "tokenizer": "tokenizer",
    "encoder": "encoder",
    "speech": "data.speech",
    "started from": "start_from",
    "model": "model",
    "discriminator": "discriminator",
    "loss": "loss",
    "optimizer": "optimizer",
    "decay of the averaged weights": "ema_decay",
    "mesh": "mesh",
    "seed": "seed",
}
OF_LOG = ("loss", "accuracy", "psnr")  # whose last values are shown
NAMES = (
    "stage",
    "steps",
    "parameters",
    *(f"last logged {name}" for name in OF_LOG),
    "time in steps",
    "images per second (median)",
    *OF_CONFIG,
    "code",
)


def of_run(run: Run) -> dict[str, str]:
    """Facts of a work directory of training by name, some of NAMES."""
    log = run.log or []
    last: Mapping[str, Any] = log[-1] if log else {}
    planned = run.config.get("steps")
    facts = {"stage": run.stage} if run.stage else {}
    if log:
        facts["steps"] = text(last["step"]) + (
            f" of {text(planned)}" if planned not in (None, last["step"]) else ""
        )
    elif planned is not None:
        facts["steps"] = f"none logged, {text(planned)} planned"
    if run.parameters is not None:
        facts["parameters"] = f"{run.parameters:,}"
    for name in OF_LOG:
        if name in last:
            facts[f"last logged {name}"] = text(last[name])
    if (seconds := time_in_steps(log)) > 0:
        facts["time in steps"] = duration(seconds)
    speeds = [number(line.get("examples_per_second")) for line in log]
    if speeds := [speed for speed in speeds if math.isfinite(speed)]:
        facts["images per second (median)"] = text(round(statistics.median(speeds), 2))
    for name, place in OF_CONFIG.items():
        value: Any = run.config
        for key in place.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if shown := text(_without_empty(value)) if value not in (None, "", [], {}) else "":
            facts[name] = shown
    if run.log is not None:
        facts["code"] = run.code or "not recorded"
    return facts


def _without_empty(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: part for name, part in value.items() if part not in (None, "", [], {})}


def time_in_steps(log: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of all logged steps; pictures, checkpoints and pauses between runs are not in it."""
    seconds, before = 0.0, 0.0
    for line in log:
        step = number(line["step"])
        of_one = number(line.get("step_seconds"))
        if math.isfinite(of_one):
            seconds += of_one * (step - before)
        before = step
    return seconds


def duration(seconds: float) -> str:
    """`3 d 4 h`, `2 h 5 min`, `4.0 min` or `12.0 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def warnings(run: Run) -> list[str]:
    """What the results of a run were warned of, and what its log tells."""
    found = [f"{file}: {one}" for file, result in run.results.items() for one in result.warnings]
    log = run.log
    if log is None:
        return found
    last: Mapping[str, Any] = log[-1] if log else {}
    planned = run.config.get("steps")
    if planned is not None and last.get("step") != planned:
        found.append(
            f"training is not finished: step {text(last.get('step', 0))} of {text(planned)}"
        )
    if run.cut_short:
        found.append("the last line of training.jsonl is half-written and left out")
    if (skipped := number(last.get("skipped_steps"))) > 0:
        found.append(f"{skipped:,.0f} steps were skipped: loss or gradients were not finite")
    if (unreadable := number(last.get("unreadable_images"))) > 0:
        found.append(f"{unreadable:,.0f} images could not be read and were left out")
    broken = {
        str(name)
        for line in log
        for name, value in line.items()
        if not math.isfinite(number(value))
    }
    if broken:
        found.append(f"training.jsonl has values that are not finite: {', '.join(sorted(broken))}")
    return found

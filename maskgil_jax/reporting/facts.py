"""Facts of a training run, and warnings that its reader should know of."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from maskgil_jax.reporting.collect import Run
from maskgil_jax.reporting.formatting import number, text

# Facts and their places in the config. A dictionary is one fact.
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
EMPTY: tuple[Any, ...] = (None, "", [], {})
OF_LOG = ("loss", "accuracy", "psnr")  # whose last values are facts
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
    """Facts of a training run by name, some of NAMES."""
    facts = {"stage": run.stage} if run.stage else {}
    if steps := _steps(run):
        facts["steps"] = steps
    if run.parameters is not None:
        facts["parameters"] = f"{run.parameters:,}"
    facts |= _of_log(run.log or []) | _of_config(run.config)
    if run.log is not None:
        facts["code"] = run.code or "not recorded"
    return facts


def _steps(run: Run) -> str:
    """How many steps were trained, and of how many where this differs."""
    planned = run.config.get("steps")
    if run.log:
        last = run.log[-1]["step"]
        return text(last) + (f" of {text(planned)}" if planned not in (None, last) else "")
    return "" if planned is None else f"none logged, {text(planned)} planned"


def _of_log(log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    last: Mapping[str, Any] = log[-1] if log else {}
    facts = {f"last logged {name}": text(last[name]) for name in OF_LOG if name in last}
    if (seconds := time_in_steps(log)) > 0:
        facts["time in steps"] = duration(seconds)
    speeds = [number(line.get("examples_per_second")) for line in log]
    if speeds := [speed for speed in speeds if math.isfinite(speed)]:
        facts["images per second (median)"] = text(round(statistics.median(speeds), 2))
    return facts


def _of_config(config: Mapping[str, Any]) -> dict[str, str]:
    """The values of OF_CONFIG that are set."""
    facts = {}
    for name, place in OF_CONFIG.items():
        value: Any = config
        for key in place.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value not in EMPTY and (fact := text(_without_empty(value))):
            facts[name] = fact
    return facts


def _without_empty(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: x for name, x in value.items() if x not in EMPTY}


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
    """The warnings in the results of a run, and those that follow from its log."""
    texts = [f"{file}: {text}" for file, result in run.results.items() for text in result.warnings]
    log = run.log
    if log is None:
        return texts
    last: Mapping[str, Any] = log[-1] if log else {}
    planned = run.config.get("steps")
    if planned is not None and last.get("step") != planned:
        texts.append(
            f"training is not finished: step {text(last.get('step', 0))} of {text(planned)}"
        )
    if run.cut_short:
        texts.append("the last line of training.jsonl is half-written and left out")
    if (skipped := number(last.get("skipped_steps"))) > 0:
        texts.append(f"{skipped:,.0f} steps were skipped: loss or gradients were not finite")
    if (unreadable := number(last.get("unreadable_images"))) > 0:
        texts.append(f"{unreadable:,.0f} images could not be read and were left out")
    broken = {
        str(name)
        for line in log
        for name, value in line.items()
        if not math.isfinite(number(value))
    }
    if broken:
        texts.append(f"training.jsonl has values that are not finite: {', '.join(sorted(broken))}")
    return texts

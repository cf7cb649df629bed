"""The fastest setting of a training step: batch, recomputation, fsdp and options of the compiler.

One after another each of them is varied while the others stay, from the best that is known on,
until nothing improves or so many programs were compiled as were asked for. A search that is started
again finds what was compiled in the cache, and goes on from there.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Plan = Mapping[str, Any]

# Options that are tried beside those that are given; each is a change of them.
COMPILER_OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("xla_tpu_scoped_vmem_limit_kib=32768",),
    ("xla_tpu_scoped_vmem_limit_kib=65536",),
    ("xla_tpu_scoped_vmem_limit_kib=98304",),
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is searched.

    Attributes:
      compiler_options: NAME=VALUE of each, in the order in which they hold.
      batch_per_chip: images a step.
      fsdp: devices that parameters are split over.
      remat: what is recomputed.
    """

    compiler_options: tuple[str, ...]
    batch_per_chip: int
    fsdp: int
    remat: str

    def __str__(self) -> str:
        options = ",".join(self.compiler_options) or "none"
        return (
            f"{self.batch_per_chip} a chip, fsdp {self.fsdp}, remat {self.remat}, options {options}"
        )


def search(
    start: Setting,
    choices: Mapping[str, Sequence[Any]],
    plan_of: Callable[[Setting], Plan],
    goes_on: Callable[[], bool],
) -> list[tuple[Setting, Plan]]:
    """All settings that were tried, the fastest first; those that do not fit come last.

    Args:
      start: the first setting.
      choices: by the name of a field of Setting, its values.
      plan_of: compiles a setting.
      goes_on: whether one more may be tried.
    """
    tried = {start: plan_of(start)}
    while True:
        before = max(tried, key=lambda one: _speed(tried[one]))
        best = before
        for field, values in choices.items():
            for setting in _varied(best, field, values, tried):
                if not goes_on():
                    return _ordered(tried)
                tried[setting] = plan_of(setting)
            best = max(tried, key=lambda one: _speed(tried[one]))
        if best == before:
            return _ordered(tried)


def _varied(
    best: Setting, field: str, values: Sequence[Any], tried: Mapping[Setting, Plan]
) -> Iterator[Setting]:
    """Settings that differ in one field; no larger batches than one that did not fit."""
    for value in values:
        setting = dataclasses.replace(best, **{field: value})
        smaller = (
            one
            for one, plan in tried.items()
            if not plan["fits"]
            and one.batch_per_chip <= setting.batch_per_chip
            and dataclasses.replace(one, batch_per_chip=setting.batch_per_chip) == setting
        )
        if setting not in tried and not any(smaller):
            yield setting


def _speed(plan: Plan) -> float:
    """Images a second; 0 where it does not fit."""
    return float(plan["images_per_second"]) if plan["fits"] else 0.0


def _ordered(tried: Mapping[Setting, Plan]) -> list[tuple[Setting, Plan]]:
    return sorted(tried.items(), key=lambda one: -_speed(one[1]))

"""A study's config to the runs that it needs, and to its cells; nothing is trained or read for it.

A run is called after its stage and what decides its weights, so that cells, and studies that name
one directory of runs, share it.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.data import sources
from maskgil_jax.generation.options import Decoding
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.options import flags_of
from maskgil_jax.training.config_changes import identity
from maskgil_jax.training.kept_steps import step_of
from maskgil_jax.workflows.options import StudyOptions
from maskgil_jax.workflows.run import with_texts
from maskgil_jax.workflows.trained_runs import Run

AT_STEP, AT_EPOCH = "at_step", "at_epoch"  # axes of kept checkpoints of one run
RUNS = "{runs}"  # stands for the directory of runs
Values = Mapping[str, Any]


class Cell(NamedTuple):
    """A combination of values of the axes.

    Attributes:
      name: AXIS=VALUE,AXIS=VALUE.
      values: by axis.
      runs: names of its runs, in their order; the last gives the model that is measured.
      codes: name of the run that makes the codes of the likelihood, their arrayrecord:DIR, or "".
      step: of the last run, whose checkpoint is measured.
      decoding: flags and their values.
    """

    name: str
    values: Values
    runs: tuple[str, ...]
    codes: str
    step: int
    decoding: Values


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study is to do.

    Attributes:
      config: of the study.
      workdir: of the study.
      axes: names, the slowest first.
      runs: by name, each after those that it needs.
      cells: by name.
    """

    config: ConfigDict
    workdir: epath.Path
    axes: Sequence[str]
    runs: Mapping[str, Run]
    cells: Mapping[str, Cell]

    def stages_of(self, cell: Cell) -> dict[str, Run]:
        """The runs of a cell by their stages, in order."""
        return {self.runs[name].config.stage: self.runs[name] for name in cell.runs}

    def needed_by(self, cells: Iterable[Cell]) -> list[Run]:
        """The runs of these cells, each after those that it needs."""
        names = {name for cell in cells for name in (*cell.runs, cell.codes)}
        return [run for name, run in self.runs.items() if name in names]


def planned(options: StudyOptions) -> Plan:
    """The runs and cells of a study.

    Raises:
      InputError: axes or changes that there are not, two cells of one name, or a step that no run
        has.
    """
    config, workdir = options.config.values, paths.absolute(options.workdir)
    if "base" not in config or "axes" not in config:
        raise InputError("config: has no base and axes, expected a study, as configs/studies/norms")
    folder = paths.absolute(options.runs) if options.runs else workdir / "runs"
    axes = axes_of(config)
    planner = _Planner(config, folder)
    cells: dict[str, Cell] = {}
    for values in itertools.product(*axes.values()):
        cell = planner.cell(dict(zip(axes, values, strict=True)))
        if cell.name in cells:
            raise InputError(f"config.axes: two cells are called {cell.name}")
        cells[cell.name] = cell
    return Plan(config, workdir, tuple(axes), planner.runs(), cells)


def axes_of(config: ConfigDict) -> dict[str, tuple[Any, ...]]:
    """The values of each axis of a study, in the order of its tables.

    Raises:
      InputError: none, one that there is not, or a value that it does not take.
    """
    order = tuple(config.order) or tuple(sorted(config.axes))
    if not config.axes or sorted(order) != sorted(config.axes):
        raise InputError(
            f"config.axes = {', '.join(config.axes) or 'none'} and config.order = "
            f"{', '.join(order) or 'none'}: expected the same names, one or more"
        )
    axes = {name: tuple(_several(name, config.axes[name])) for name in order}
    known = {*config.fields, *config.changes, AT_STEP, AT_EPOCH, *flags_of(Decoding)}
    for name, values in axes.items():
        if name not in known:
            raise InputError(
                f"config.axes.{name}: there is no such axis, expected one of config.fields or "
                f"config.changes, {AT_STEP}, {AT_EPOCH}, or a flag of decoding, such as guidance"
            )
        if name in config.changes:
            for value in values:
                if value not in config.changes[name]:
                    raise InputError(
                        f"config.axes.{name} has {value!r}, expected some of "
                        f"{', '.join(map(str, config.changes[name]))}"
                    )
        elif name not in config.fields and name not in (AT_STEP, AT_EPOCH):
            axes[name] = tuple(decoding_value(name, value) for value in values)
    if AT_STEP in axes and AT_EPOCH in axes:
        raise InputError(f"config.axes has {AT_STEP} and {AT_EPOCH}, expected one of them")
    return axes


def _several(name: str, values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple) or not values:
        raise InputError(f"config.axes.{name} = {values!r}, expected values, as (1, 2)")
    return values


def decoding_value(name: str, value: Any) -> Any:
    """A value of a flag of decoding, of its type; InputError where it is none."""
    known = flags_of(Decoding)
    if name not in known:
        raise InputError(f"config.decoding.{name}: there is no such flag of decoding")
    try:
        return known[name].parser.parse(str(value))
    except ValueError:
        kind = known[name].parser.flag_type()
        raise InputError(f"{name} = {value!r}, expected a value of type {kind}") from None


def name_of(values: Values) -> str:
    """What a cell of these values is called."""
    return ",".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


class _Planner:
    """Makes cells, and collects the runs that they need."""

    def __init__(self, config: ConfigDict, folder: epath.Path):
        self._config, self._folder = config, folder
        self._runs: dict[str, ConfigDict] = {}
        self._kept: dict[str, set[int]] = {}
        self._images: dict[str, int] = {}

    def runs(self) -> dict[str, Run]:
        """The runs, whose configs keep the checkpoints that the cells measure."""
        return {name: self._run(name, config) for name, config in self._runs.items()}

    def _run(self, name: str, config: ConfigDict) -> Run:
        placed = with_texts(config, lambda text: text.replace(RUNS, str(self._folder)))
        if kept := self._kept.get(name):
            placed.keep_steps = tuple(sorted({*placed.keep_steps, *kept}))
        return Run(name, placed, self._folder / name)

    def cell(self, values: Values) -> Cell:
        """The cell of these values; its runs are added to those that there are."""
        name = name_of(values)
        try:
            return self._cell(name, values)
        except InputError as error:
            raise InputError(f"cell {name}: {error}") from None

    def _cell(self, name: str, values: Values) -> Cell:
        named = self._named(changed(self._config, values))
        for run_name, config in named.values():
            self._runs.setdefault(run_name, config)
        last, config = list(named.values())[-1]
        step = self._step(config, values)
        if step < config.steps:
            self._kept.setdefault(last, set()).add(step)
        decoding = {k: decoding_value(k, v) for k, v in self._config.decoding.items()}
        of_runs = {*self._config.fields, *self._config.changes}
        decoding |= {k: v for k, v in values.items() if k in {*flags_of(Decoding)} - of_runs}
        names = tuple(run_name for run_name, _ in named.values())
        return Cell(name, values, names, self._codes(named), step, decoding)

    def _named(self, stages: Mapping[str, ConfigDict]) -> dict[str, tuple[str, ConfigDict]]:
        """By stage the name of its run, and its config, in which the runs before it are named."""
        named: dict[str, tuple[str, ConfigDict]] = {}
        for stage, config in stages.items():
            known = {before: run_name for before, (run_name, _) in named.items()}
            filled = with_texts(config, functools.partial(_placed, known=known))
            named[stage] = f"{stage}-{identity(filled)}", filled
        return named

    def _step(self, config: ConfigDict, values: Values) -> int:
        """The step of a run that a cell measures."""
        if config.stage == "codes":
            raise InputError("config.base ends with codes, expected a tokenizer or a generator")
        step: Any = values.get(AT_EPOCH, values.get(AT_STEP, config.steps))
        if AT_EPOCH in values and isinstance(values[AT_EPOCH], int | float):
            images = self._config.epoch_images or self._images_of(config)
            step = step_of(float(values[AT_EPOCH]), images, config.batch_size)
        if type(step) is not int or not 1 <= step <= config.steps:
            raise InputError(
                f"step {step} is measured, but the {config.stage} is trained for {config.steps} "
                "steps"
            )
        return step

    def _images_of(self, config: ConfigDict) -> int:
        """Images of an epoch of a stage, those of its codes' source where that is a run."""
        source = config.data.source
        name = source.rpartition(f"{RUNS}/")[2] if RUNS in source else ""
        source = self._runs[name].source if name in self._runs else source
        if source.startswith("arrayrecord:"):
            raise InputError(f"{AT_EPOCH} of {source}: expected config.epoch_images")
        if source not in self._images:
            self._images[source] = len(sources.open_source(source))
        return self._images[source]

    def _codes(self, named: Mapping[str, tuple[str, ConfigDict]]) -> str:
        """The run that makes the codes of the likelihood, or where they are."""
        source = self._config.measure.codes
        if not source or source.startswith("arrayrecord:"):
            return str(source)
        if "codes" not in named:
            raise InputError(
                f"config.measure.codes = {source!r}, but config.base has no stage codes that would "
                "encode it: expected arrayrecord:DIR"
            )
        config = named["codes"][1].copy_and_resolve_references()
        config.update(source=source, crops="center", views=1)
        name = f"codes-{identity(config)}"
        self._runs.setdefault(name, config)
        return name


def _placed(text: str, known: Mapping[str, str]) -> str:
    """A text of a config in which earlier stages, and what all runs share, are in their places."""
    for stage, name in known.items():
        text = re.sub(rf"\{{workdir\}}/{stage}(?=/|$)", f"{RUNS}/{name}", text)
    return text.replace("{workdir}/compilation_cache", f"{RUNS}/compilation_cache")


def changed(config: ConfigDict, values: Values) -> dict[str, ConfigDict]:
    """The stages of a study's base, as the values of a cell change them.

    Raises:
      InputError: a stage or a field that is not there, or a value of another type.
    """
    base = config.base.copy_and_resolve_references()
    stages = {name: stage.lock() for name, stage in defaults.stages_of(base).items()}
    for axis, value in values.items():
        if axis in config.fields:
            stage, _, field = config.fields[axis].partition(".")
            _change(stages, stage, _nested(field, value), axis)
        elif axis in config.changes:
            for stage, change in config.changes[axis][value].items():
                if "stage" in change:
                    stages[stage] = change.copy_and_resolve_references().lock()
                else:
                    _change(stages, stage, change, axis)
    return stages


def _nested(field: str, value: Any) -> dict[str, Any]:
    first, _, rest = field.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _change(stages: Mapping[str, ConfigDict], stage: str, change: Any, axis: str) -> None:
    if stage not in stages:
        raise InputError(
            f"axis {axis} changes stage {stage!r}, but config.base has {', '.join(stages)}"
        )
    try:
        stages[stage].update(change)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"axis {axis}, stage {stage}: {error}") from None

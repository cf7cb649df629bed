"""A study: the runs that its cells need are trained, the cells measured, and all put in one table.

Any number of processes do it together, on one machine or on several that share its directories:
each takes what nobody else holds, and waits where there is nothing to take. What is held by one
that has died is taken over (runtime/work_lock.py).
"""

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
from etils import epath

from maskgil_jax.runtime import processes, work_lock
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import write_json
from maskgil_jax.workflows import study_cells, study_checks, study_costs, study_tables
from maskgil_jax.workflows.options import StudyOptions
from maskgil_jax.workflows.study_checks import Networks
from maskgil_jax.workflows.study_plan import Cell, Plan, planned

log = logging.getLogger("maskgil_jax")

PAUSE = 2.0  # seconds between two looks at what others hold


class Task(NamedTuple):
    """A run to train, or a cell to measure.

    Attributes:
      name: of either.
      is_done: whether it is there.
      do: does it, alone; Busy where somebody else does.
      needs: names of the tasks before it.
    """

    name: str
    is_done: Callable[[], bool]
    do: Callable[[], None]
    needs: tuple[str, ...]


def study(options: StudyOptions) -> dict[str, epath.Path]:
    """Do the study, or one cell of it, or say what there is to do.

    Returns:
      The directories that a report is of, by name; none where no table was written, and none but on
      the first of several processes.

    Raises:
      InputError: a study that cannot be done, before anything is trained; or runs that failed,
        after all that did not need them is done.
    """
    plan = planned(options)
    known = study_checks.check(plan, options.only)
    cells = [plan.cells[options.only]] if options.only else [*plan.cells.values()]
    if processes.first():
        costs = study_costs.costs(plan, known, plan.needed_by(cells))
        print(study_costs.described(plan, costs, cells), flush=True)
    if options.dry_run:
        return {}
    processes.by_first(functools.partial(_begin, plan), f"workdir={plan.workdir}")
    failed = work_through(tasks_of(plan, cells))
    there = [cell for cell in plan.cells.values() if study_cells.is_measured(plan, cell)]
    written = bool(there) and (len(there) == len(plan.cells) or bool(failed))
    if written and processes.first():
        finish(plan, there, known, failed)
    elif processes.first():
        log.info("%d of %d cells are there: no table yet", len(there), len(plan.cells))
    processes.wait("the study is written")
    if failed:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise InputError(
            f"workdir={plan.workdir}: {len(failed)} runs or cells failed, and those that need them "
            f"are left out; the same command tries again:\n{reasons}"
        )
    return _shown(plan, there) if written and processes.first() else {}


def _begin(plan: Plan) -> int:
    """Write the config of the study into its work directory."""
    try:
        write_json(plan.workdir / study_checks.CONFIG, study_checks.as_json(plan))
    except OSError as error:
        raise InputError(f"workdir={plan.workdir} cannot be written: {error}") from None
    return 0


def tasks_of(plan: Plan, cells: Sequence[Cell]) -> list[Task]:
    """What there is to do for these cells, in order: the runs of each before it."""
    tasks: dict[str, Task] = {}
    for cell in cells:
        names: list[str] = []
        stages = {plan.runs[name].config.stage: name for name in cell.runs}
        tokenizer = tuple(stages[name] for name in ("tokenizer",) if name in stages)
        before = {"tokenizer": (), "codes": tokenizer, "generator": cell.runs[:-1]}
        for name in filter(plan.runs.__contains__, (*cell.runs, cell.codes)):
            run = plan.runs[name]
            tasks.setdefault(name, Task(name, run.is_finished, run.train, before[run.config.stage]))
            names.append(name)
        tasks[cell.name] = Task(
            cell.name,
            functools.partial(study_cells.is_measured, plan, cell),
            functools.partial(_measure, plan, cell),
            tuple(names),
        )
    return list(tasks.values())


def _measure(plan: Plan, cell: Cell) -> None:
    """Measure a cell that nobody else is measuring."""
    claim = plan.workdir / "claims" / cell.name.replace("/", "%2F")
    with work_lock.held(claim, "workdir"):
        if not study_cells.is_measured(plan, cell):
            log.info("cell %s", cell.name)
            study_cells.measure(plan, cell)


def work_through(tasks: Sequence[Task]) -> dict[str, str]:
    """Do all tasks that nobody else does, and wait until these are done too.

    With several processes of one run the first chooses, and all of them do the task.

    Returns:
      Why tasks failed, by name; those that need one of them are not done.

    Raises:
      InputError: with several processes of one run, why a task failed.
    """
    done: set[str] = set()
    busy: set[str] = set()
    failed: dict[str, str] = {}
    while True:
        choice = _choice(tasks, done, busy, failed) if processes.first() else 0
        choice = processes.total(choice)
        if choice == NOTHING:
            return failed
        if choice == OTHERS:
            time.sleep(PAUSE)
            busy.clear()
            continue
        task = tasks[choice]
        if not _tried(task, failed):
            busy.add(task.name)
        elif task.name not in failed:
            done.add(task.name)


NOTHING, OTHERS = -1, -2  # instead of a task: there is none left, or others do those that are


def _choice(
    tasks: Sequence[Task], done: set[str], busy: set[str], failed: Mapping[str, str]
) -> int:
    """The number of the task to try next, NOTHING or OTHERS; `done` learns what is there."""
    done |= {task.name for task in tasks if task.name not in done and task.is_done()}
    left = {
        task.name: number
        for number, task in enumerate(tasks)
        if task.name not in done and not {task.name, *task.needs} & {*failed}
    }
    if not left:
        return NOTHING
    for name, number in left.items():
        if name not in busy and not {*tasks[number].needs} & {*left}:
            return number
    return OTHERS


def _tried(task: Task, failed: dict[str, str]) -> bool:
    """Whether the task was this one's to do."""
    try:
        task.do()
    except work_lock.Busy:
        return False
    except InputError as error:
        if jax.process_count() > 1:
            raise
        log.error("%s failed: %s", task.name, error)
        failed[task.name] = str(error)
    return True


def finish(plan: Plan, cells: Sequence[Cell], known: Networks, failed: Mapping[str, str]) -> None:
    """Write tables and figures of the cells that are there; clear what they were made of."""
    study_tables.write(plan, cells, known, failed)
    print((plan.workdir / "study.md").read_text(), end="", flush=True)
    log.info("wrote tables and figures to %s", plan.workdir)
    for name in ("unfinished", "claims"):
        (plan.workdir / name).rmtree(missing_ok=True)


def _shown(plan: Plan, cells: Sequence[Cell]) -> dict[str, epath.Path]:
    """What the page of a study is of: its table, and the runs by the cells that they are of."""
    shown = {plan.workdir.name: plan.workdir}
    for run in plan.needed_by(cells):
        if run.config.stage != "codes":
            title = study_tables.title_of(plan, run)
            shown[title if title not in shown else f"{title}, {run.name}"] = run.directory
    return shown

"""Traces of training steps, by JAX's profiler: WORKDIR/trace, for TensorBoard and xprof."""

import contextlib
import logging
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

FOLDER = "trace"
NAME = "train"  # of a step in the trace, with its number


def steps_of(text: str, steps: int) -> range:
    """The steps that config.trace names: START:STOP, both in; none where it is "".

    Args:
      text: of the config.
      steps: of the whole run.

    Raises:
      InputError: another form, or steps that the run does not have.
    """
    if not text:
        return range(0)
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last <= steps:
        raise InputError(
            f"config.trace = {text!r}, expected START:STOP with 1 <= START <= STOP <= {steps} "
            "(config.steps)"
        )
    return range(first, last + 1)


class Trace:
    """Writes the trace of some steps, on the first process; a context, left where the run ends.

    Args:
      steps: to trace, from `steps_of`.
      start_step: steps that were done before.
      directory: the work directory.
    """

    def __init__(self, steps: range, start_step: int, directory: epath.Path):
        left = range(max(steps.start, start_step + 1), steps.stop)
        if len(left) < len(steps):
            which = f"steps {left.start} to {left.stop - 1} are" if left else "nothing is"
            log.info("config.trace: %d steps are done already, %s traced", start_step, which)
        self._steps = left if processes.first() else range(0)
        self._to, self._files = directory / FOLDER, ""

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The body is the step of this number, which begins the trace if it is the first in it."""
        if number not in self._steps:
            yield
            return
        if not self._files:
            # In one piece, and where the profiler itself cannot write to, such as gs://.
            self._files = tempfile.mkdtemp(prefix="maskgil_trace_")
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # each call of Python would be most of the trace
            jax.profiler.start_trace(self._files, profiler_options=options)
        with jax.profiler.StepTraceAnnotation(NAME, step_num=number):
            yield

    def done(self, number: int, results: Any) -> None:
        """Take what a step gives: after the last step of the trace it is waited for, and written.

        Raises:
          InputError: it cannot be written.
        """
        if self._files and number == self._steps[-1]:
            jax.block_until_ready(results)
            self._write()

    def _write(self) -> None:
        files, self._files = self._files, ""
        jax.profiler.stop_trace()
        try:
            _copy(epath.Path(files), self._to)
        except OSError as error:
            raise InputError(f"{self._to}: the trace cannot be written: {error}") from error
        finally:
            shutil.rmtree(files, ignore_errors=True)
        log.info("the trace is in %s", self._to)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *error: object) -> None:
        if self._files:  # the run stops within the steps to trace
            with contextlib.suppress(InputError):
                self._write()


def _copy(source: epath.Path, to: epath.Path) -> None:
    """Copy all files of a local folder to another, which may be in cloud storage."""
    for path in sorted(pathlib.Path(source).rglob("*")):
        if path.is_file():
            target = to / path.relative_to(source).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(path).copy(target, overwrite=True)

"""Where a run's numbers and pictures go: JSON lines, the terminal, and trackers."""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from maskgil_jax.runtime import paths, processes, work_lock
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import to_json, write_bytes
from maskgil_jax.training import trackers

log = logging.getLogger("maskgil_jax")

LOG = "training.jsonl"
UNREADABLE = "training.unreadable.txt"
Line = dict[str, Any]  # `step`, an integer, and numbers


class Writer:
    """Scalars to `training.jsonl` and trackers, progress to the terminal; process 0 alone.

    What an earlier run wrote after `start_step` is dropped, since those steps are done again; lines
    that cannot be read are kept in another file. In cloud storage the lines appear once a minute.
    A tracker beside TensorBoard that fails is left out from then on, with a warning.

    Args:
      directory: the work directory.
      start_step, steps: that are done already, and of the whole run.
      tracker: makes another tracker than TensorBoard; None: there is none.
      config: that it is told of, JSON-able.

    Raises:
      InputError: the log cannot be written.
    """

    def __init__(
        self,
        directory: epath.Path,
        *,
        start_step: int,
        steps: int,
        tracker: trackers.Make | None = None,
        config: dict[str, Any] | None = None,
    ):
        self._active = processes.first()
        if not self._active:
            return
        self._log = directory / LOG
        earlier = parse_log(self._log.read_bytes() if self._log.exists() else b"")
        if earlier.unreadable:
            _keep_aside(directory, earlier)
        self._lines = [line for line in earlier.lines if line["step"] <= start_step]
        self._write_whole_log()
        self._file = None if paths.is_remote(directory) else self._log.open("a")
        start = trackers.Start(str(directory), config or {}, start_step)
        self._board = trackers.TensorBoard(start)
        self._tracker: trackers.Tracker | None = None
        if tracker is not None:
            self._tracker = self._guarded("did not start", tracker, start)
        self._started, self._first, self._steps = time.monotonic(), start_step, steps
        self._bar = None
        if _on_terminal():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def _write_whole_log(self) -> None:
        text = "".join(to_json(line) + "\n" for line in self._lines)
        try:
            write_bytes(self._log, text.encode())
        except OSError as error:
            raise InputError(f"{self._log} cannot be written: {error}") from error
        self._written = time.monotonic()

    def _append(self, line: Line) -> None:
        self._lines.append(line)
        if self._file is None:
            if time.monotonic() - self._written > 60:
                self._write_whole_log()
            return
        try:
            self._file.write(to_json(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"{self._log} cannot be written: {error}") from error

    def _guarded(self, failed: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """What a call of the tracker gives; after one that fails there is no tracker any more."""
        try:
            return do(*arguments)
        except Exception as error:  # of others' code; a run of days does not end for it
            log.warning("the tracker %s, the run goes on without it: %r", failed, error)
            self._tracker = None

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        if self._active and self._bar is not None:
            self._bar.update(step - self._bar.n)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log numbers; on a terminal beside the bar, else as a line with the time that is left."""
        if not self._active:
            return
        self._append({"step": step, **values})
        self._board.scalars(step, values)
        if self._tracker:
            self._guarded(f"failed at step {step}", self._tracker.scalars, step, values)
        names = [name for name in ("loss", "accuracy", "psnr", "mfu") if name in values]
        text = " ".join(f"{name} {values[name]:.4g}" for name in names)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        done = max(step - self._first, 1)
        left = (time.monotonic() - self._started) / done * (self._steps - step)
        rate = values["examples_per_second"]
        print(
            f"step {step}/{self._steps}  {text}  {rate:.1f} images/s  {_duration(left)} left",
            flush=True,
        )

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Log uint8 images [H, W, 3]."""
        if not self._active:
            return
        self._board.pictures(step, pictures)
        if self._tracker:
            self._guarded(f"failed at step {step}", self._tracker.pictures, step, pictures)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            if self._file is None:
                if work_lock.Lost not in error:  # else the log is another run's now
                    self._write_whole_log()
            else:
                self._file.close()
            self._board.close()
            if self._tracker:
                self._guarded("did not close", self._tracker.close)
            if self._bar is not None:
                self._bar.close()


class Log(NamedTuple):
    """A training log.

    Attributes:
      lines: those that can be read, in their order.
      unreadable: the others by number, from 1.
    """

    lines: list[Line]
    unreadable: dict[int, bytes]


def read_log(directory: epath.PathLike) -> list[Line]:
    """The lines of a run's `training.jsonl`, without those that cannot be read."""
    path = epath.Path(directory) / LOG
    return parse_log(path.read_bytes()).lines if path.exists() else []


def parse_log(content: bytes) -> Log:
    """The lines of a log; one that a crash cut short is among the unreadable ones."""
    lines, unreadable = [], {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        parsed = _parse_line(line)
        if parsed is None:
            unreadable[number] = line
        else:
            lines.append(parsed)
    return Log(lines, unreadable)


def _parse_line(line: bytes) -> Line | None:
    try:
        content = json.loads(line.decode("utf-8-sig"))
        numbers = {name: _number(value) for name, value in content.items()}
        return numbers if type(numbers["step"]) is int else None
    # The bytes are no text or no JSON, nested too deeply, no object, or without such fields.
    except (ValueError, RecursionError, AttributeError, KeyError):
        return None


def _number(value: Any) -> int | float:
    """A number of the log; ValueError where it is none.

    Numbers that are not finite are texts (see runtime/files.py), in the logs of others null.
    """
    if value is None:
        return math.nan
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if not isinstance(value, int | float):
        raise ValueError
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return value


def _keep_aside(directory: epath.Path, earlier: Log) -> None:
    """Keep unreadable lines of the log, before it is rewritten without them."""
    path = directory / UNREADABLE
    before = path.read_bytes() if path.exists() else b""
    block = b"".join(line + b"\n" for line in earlier.unreadable.values())
    if not before.endswith(block):  # it may have been kept by a run that was killed then
        write_bytes(path, before + block)
    numbers = [str(number) for number in earlier.unreadable]
    first = ", ".join(numbers[:5]) + (", ..." if len(numbers) > 5 else "")
    log.warning(
        "%s: %d of %d lines cannot be read (line %s) and are kept in %s",
        *(directory / LOG, len(numbers), len(numbers) + len(earlier.lines), first, path),
    )


def _on_terminal() -> bool:
    # A terminal of width 0, as some containers give, shows no bar.
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

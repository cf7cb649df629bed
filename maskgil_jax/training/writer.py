"""Where a run's numbers and pictures go: JSON lines, TensorBoard, the terminal."""

import json
import os
import sys
import time

import numpy as np
from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

from maskgil_jax import paths, processes

LOG = "training.jsonl"


class Writer:
    """Scalars to `training.jsonl` and TensorBoard, progress to the terminal; process 0 alone.

    What an earlier run wrote after `start_step` is dropped, since those steps are done again. In a
    bucket the lines appear once a minute.
    """

    def __init__(self, directory: epath.Path, *, start_step: int, steps: int):
        self._active = processes.first()
        if not self._active:
            return
        self._log = directory / LOG
        self._lines = [line for line in read_log(directory) if line["step"] <= start_step]
        self._write_whole_log()
        self._file = None if paths.is_remote(directory) else self._log.open("a")
        self._board = SummaryWriter(
            str(directory / "tensorboard"), purge_step=start_step + 1 if start_step else None
        )
        self._started, self._first, self._steps = time.monotonic(), start_step, steps
        self._bar = None
        if _on_terminal():
            self._bar = tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def _write_whole_log(self) -> None:
        self._log.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
        self._written = time.monotonic()

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        if self._active and self._bar is not None:
            self._bar.update(step - self._bar.n)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log numbers; on a terminal beside the bar, else as a line with the time that is left."""
        if not self._active:
            return
        self._lines.append({"step": step, **values})
        if self._file is not None:
            self._file.write(json.dumps(self._lines[-1]) + "\n")
            self._file.flush()
        elif time.monotonic() - self._written > 60:
            self._write_whole_log()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        shown = {k: values[k] for k in ("loss", "accuracy", "psnr") if k in values}
        text = " ".join(f"{name} {value:.4g}" for name, value in shown.items())
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
        if self._active:
            for name, picture in pictures.items():
                self._board.add_image(name, picture, step, dataformats="HWC")
            self._board.flush()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            if self._file is None:
                self._write_whole_log()
            else:
                self._file.close()
            self._board.close()
            if self._bar is not None:
                self._bar.close()


def read_log(directory: epath.PathLike) -> list[dict[str, float]]:
    """The lines of a run's `training.jsonl`; a last line cut short by a crash is left out."""
    path = epath.Path(directory) / LOG
    return parse_log(path.read_text()) if path.exists() else []


def parse_log(text: str) -> list[dict[str, float]]:
    """The lines of a log before the first that is broken."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _on_terminal() -> bool:
    # A terminal of width 0, as some containers give, shows no bar.
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

"""Seconds from a start to the first step, of a run and of the same command after it was stopped.

    python -m tests.benchmarks.restart

The tokenizer of the quickstart, three times in one work directory: first start, start again with
the programs that the first one kept, and again after these were deleted. Whole processes, each
stopped by SIGTERM after its first step.
"""

import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

COMMAND = [sys.executable, "-m", "maskgil_jax.main", "--config=configs/quickstart.py"]
OPTIONS = ["--config.stages.tokenizer.log_every=1"]


def seconds_to_first_step(workdir: pathlib.Path) -> float:
    """A process is started; its first line about a step ends it."""
    began = time.monotonic()
    with subprocess.Popen(
        [*COMMAND, *OPTIONS, f"--workdir={workdir}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("step "):
                took = time.monotonic() - began
                process.send_signal(signal.SIGTERM)
                process.stdout.read()  # it saves a checkpoint
                return took
    raise RuntimeError("no step was trained:\n" + "".join(said[-10:]))


def main() -> None:
    """Print a line for each of the three starts."""
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory) / "run"
        print(f"first start: {seconds_to_first_step(workdir):.1f} s")
        print(f"again, programs kept: {seconds_to_first_step(workdir):.1f} s")
        for kept in list(workdir.rglob("compilation_cache")):
            shutil.rmtree(kept)
        print(f"again, programs deleted: {seconds_to_first_step(workdir):.1f} s")


if __name__ == "__main__":
    main()

"""Two frameworks timed against each other, in processes of their own, alternately.

Two frameworks in one process share its threads and memory, and neither is then as fast as alone.
Ratios of times that were not taken side by side like this are worth little: the same code moves by
10 to 40 % from one run to another. The machine should do nothing else.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from maskgil_jax.runtime.errors import InputError

PROCESSES = ("torch", "jax", "jax", "torch")  # a slow drift of the machine cancels out
GRADE = "processes of their own, alternated " + " ".join(PROCESSES)
ROOT = pathlib.Path(__file__).parents[2]

Seconds = dict[str, list[float]]
Worker = Callable[[pathlib.Path], None]


def define_flags(rounds: int) -> None:
    """The flags of every such benchmark; so many timings in each process unless told otherwise."""
    flags.DEFINE_integer("rounds", rounds, "timings in each process", lower_bound=1)
    flags.DEFINE_integer("threads", 2, "CPUs that a process may use", lower_bound=1)
    flags.DEFINE_string("output", "", "JSON file for all timings")
    flags.DEFINE_string("worker", "", "internal: prepare, torch or jax in the folder --scratch")
    flags.DEFINE_string("scratch", "", "internal")


def is_worker(prepare: Worker, torch: Worker, jax: Worker) -> bool:
    """Whether this is one of the processes, whose work is then done."""
    values = flags.FLAGS
    if not values.worker:
        return False
    use_threads(values.threads)
    {"prepare": prepare, "torch": torch, "jax": jax}[values.worker](pathlib.Path(values.scratch))
    return True


def write_output(result: dict[str, Any], runs: list[Seconds]) -> None:
    """Write the JSON that --output asks for."""
    if flags.FLAGS.output:
        content = {"grade": GRADE, **result, "seconds": runs}
        pathlib.Path(flags.FLAGS.output).expanduser().write_text(
            json.dumps(content, indent=1) + "\n"
        )


def run(module: str, scratch: pathlib.Path, settings: dict[str, Any]) -> list[Seconds]:
    """Run `module` with --worker=prepare, then as each of PROCESSES; what each measured."""
    runs = []
    for name in ("prepare", *PROCESSES):
        print(f"{name} ...", file=sys.stderr)
        options = [f"--{key}={value}" for key, value in settings.items()]
        process = subprocess.run(
            [sys.executable, "-m", module, *options, f"--worker={name}", f"--scratch={scratch}"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        if process.returncode:
            raise InputError(f"the process {name} failed; its message stands above")
        if name != "prepare":
            runs.append(json.loads((scratch / "seconds.json").read_text()))
    return runs


def use_threads(count: int) -> None:
    """Keep this process on so many CPUs."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def measure(scratch: pathlib.Path, calls: dict[str, Callable], rounds: int) -> dict[str, Any]:
    """Call everything once to warm up, then in turns; write the seconds, return the outputs."""
    outputs = {key: call() for key, call in calls.items()}
    seconds: Seconds = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    (scratch / "seconds.json").write_text(json.dumps(seconds))
    return outputs

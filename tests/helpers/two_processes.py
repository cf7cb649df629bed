"""A command as two real processes of 4 devices each, over localhost."""

import socket

from tests.helpers import commands


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_command(name, *options, environment=({}, {})):
    """Start both processes; each may have its own changes of the environment."""
    where = f"--distributed=127.0.0.1:{free_port()},2"
    return [
        commands.start(
            name,
            "--heartbeat_timeout=10",
            *options,
            f"{where},{i}",
            devices=4,
            changes=environment[i],
        )
        for i in range(2)
    ]


def start_training(workdir, *options, config="tests/helpers/tiny.py:generator"):
    """Start both processes of a training run."""
    return start_command("main", f"--config={config}", f"--workdir={workdir}", *options)


def end_both(processes, seconds=300):
    """Wait for both; returns their exit codes and outputs."""
    outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    return [process.returncode for process in processes], outputs

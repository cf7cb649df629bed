"""Commands of the package, called in this process or started as one of their own."""

import contextlib
import importlib
import io
import os
import subprocess
import sys

PROGRAM = (sys.executable, "-m")


def call(name, *options):
    """Call the command in this process, where its programs stay compiled; a bug is raised.

    Returns:
      As `run`: the exit code and what was written to the terminal.
    """
    main = importlib.import_module(f"maskgil_jax.{name}").main
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        code = main([name, *map(str, options)])
    return subprocess.CompletedProcess(name, code, stdout.getvalue(), stderr.getvalue())


def run(name, *options, devices=1, **settings):
    """Run the command as a process, as a user starts it."""
    settings = {"capture_output": True, "text": True, "timeout": 300} | settings
    return subprocess.run(line(name, *options), env=environment(devices), **settings)


def start(name, *options, devices=1, changes=None, **settings):
    """Start the command as a process, which is returned; its errors are in its output."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | settings
    return subprocess.Popen(line(name, *options), env=environment(devices, changes), **settings)


def line(name, *options):
    return [*PROGRAM, f"maskgil_jax.{name}", *map(str, options)]


def environment(devices=1, changes=None):
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **(changes or {})}

"""The version of this code, for checkpoints and results, which outlive it."""

import functools
import importlib.metadata
import pathlib
import subprocess


@functools.cache
def of_code() -> str:
    """`0.1.0`, or `0.1.0+81f556d-dirty` in a git checkout (with changes that are not committed)."""
    release = importlib.metadata.version("maskgil_jax")
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return release
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or not the owner of the checkout
        return release
    return f"{release}+{described.stdout.strip()}"

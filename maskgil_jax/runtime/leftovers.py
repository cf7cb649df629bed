"""Cleaning up what a killed run left in its work directory."""

import logging
import re

from etils import epath

from maskgil_jax.runtime import directory_swap, processes

log = logging.getLogger("maskgil_jax")

# Directories of a work directory that directory_swap.py replaces.
MODELS = ("model", "discriminator")
MARKER = "model.json"
# Of files that are written atomically (files.py), directories that replace others
# (directory_swap.py), and locks.
TEMPORARY = re.compile(r".+\.([0-9a-f]{8}|[0-9a-f]{8}\.old|[0-9a-f]{16})\.tmp|.+\.lock\..+\.claim")


def clear(directory: epath.Path) -> None:
    """Finish what was begun and delete what was half-written; all processes call this.

    Only by the one run that holds the directory (work_lock.py).
    """
    if processes.first():
        for name in MODELS:
            directory_swap.finish(directory / name, MARKER)
        temporary = [path for path in directory.iterdir() if TEMPORARY.fullmatch(path.name)]
        for path in temporary:
            path.rmtree() if path.is_dir() else path.unlink()
        if temporary:
            names = ", ".join(sorted(path.name for path in temporary))
            log.info("deleted what an interrupted run had left: %s", names)
    processes.wait("leftovers are cleared")

"""Compiled programs kept on disk, so that the next start of a run does not compile them again."""

import contextlib
import hashlib
import pathlib
import platform
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from maskgil_jax.runtime import paths, processes
from maskgil_jax.runtime.errors import InputError

ENTRY = "*-cache"  # how JAX names its files
IN_USE = "in_use"  # a run writes here; of one that was killed it stays
COMPILED = "/jax/core/compile/backend_compile_duration"  # comes once the program is written too


@contextlib.contextmanager
def kept(directory: str) -> Iterator[None]:
    """In this context programs are found in a directory, or compiled and kept there.

    Where JAX has a directory already, as by JAX_COMPILATION_CACHE_DIR, that one is used. What is
    kept is code that is run when it is found: the directory has to be one's own. The first process
    of a run writes, all read.

    Args:
      directory: may be in cloud storage, and have programs of other runs; "": none are kept.

    Raises:
      InputError: it cannot be made.
    """
    users_own = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if not directory or users_own:
        yield
        return
    path = paths.absolute(directory) / _platform()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"config.compilation_cache = {directory!r}: {error}") from None
    compilation_cache.reset_cache()  # JAX asks once whether there is one
    jax.config.update("jax_compilation_cache_dir", str(path))
    try:
        with _written_whole(path):
            yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


def _platform() -> str:
    """A folder for the machines on which a program is good: of CPUs those with the same features.

    JAX tells accelerators apart by itself.
    """
    backend = jax.default_backend()
    if backend != "cpu":
        return backend
    about = platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"cpu-{hashlib.sha256(about.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _written_whole(path: epath.Path) -> Iterator[None]:
    """Delete what a run that was killed here was still writing.

    JAX writes a file in place, and passes a damaged one over with a warning each time. The mark is
    touched after each program, so that what is newer than the mark of a killed run is not whole.
    """
    if paths.is_remote(path) or not processes.first():  # buckets write whole objects only
        yield
        return
    mark = pathlib.Path(path) / IN_USE
    if mark.exists():
        for entry in mark.parent.glob(ENTRY):
            if entry.stat().st_mtime_ns > mark.stat().st_mtime_ns:
                entry.unlink(missing_ok=True)
    mark.touch()

    def program_is_kept(event: str, duration_secs: float, **about: str | int) -> None:
        if event == COMPILED:
            mark.touch()

    jax.monitoring.register_event_duration_secs_listener(program_is_kept)
    try:
        yield
    finally:  # also where a signal has ended the run
        jax.monitoring.unregister_event_duration_listener(program_is_kept)
        mark.unlink(missing_ok=True)

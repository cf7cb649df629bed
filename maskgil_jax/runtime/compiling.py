"""What is said while XLA compiles a program: that it does, and for how many seconds."""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator

import jax.monitoring

log = logging.getLogger("maskgil_jax")

EVENT = "/jax/core/compile/backend_compile_duration"  # a scalar at the start, a duration at the end
PATIENCE = 3.0  # seconds; of programs that are compiled in less nothing is said
EVERY = 30.0  # seconds between the lines after the first


class Compilation:
    """A program that is being compiled: a thread says so until it is `done`."""

    def __init__(self, name: str):
        self._name = re.sub(r"^jit\((.*)\)$", r"\1", name).strip("_").replace("_", " ")
        self._began = time.monotonic()
        self._finished, self._told = threading.Event(), False
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._teller.start()

    def _tell(self) -> None:
        patience = PATIENCE
        while not self._finished.wait(patience):
            log.info("compiling %s ... %.0f s", self._name, time.monotonic() - self._began)
            self._told, patience = True, EVERY

    def done(self) -> None:
        """It is compiled, or was refused."""
        self._finished.set()
        self._teller.join()
        if self._told:
            log.info("compiling %s took %.0f s", self._name, time.monotonic() - self._began)


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """In this context the log says which program is being compiled, where that takes long."""
    under_way: dict[int, list[Compilation]] = {}  # by thread, the innermost last

    def begun(event: str, value: float | int, **about: str | int) -> None:
        if event == EVENT:
            name = str(about.get("fun_name", "a program"))
            under_way.setdefault(threading.get_ident(), []).append(Compilation(name))

    def ended(event: str, duration_secs: float, **about: str | int) -> None:
        if event == EVENT and (mine := under_way.get(threading.get_ident())):
            mine.pop().done()

    jax.monitoring.register_scalar_listener(begun)
    jax.monitoring.register_event_duration_secs_listener(ended)
    try:
        yield
    finally:
        jax.monitoring.unregister_scalar_listener(begun)
        jax.monitoring.unregister_event_duration_listener(ended)

"""How every command starts and ends: flags, logging, one clear message, the exit code."""

import contextlib
import dataclasses
import faulthandler
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
from absl import logging as absl_logging
from tqdm import tqdm

from maskgil_jax.runtime import config_files, options, usage
from maskgil_jax.runtime.errors import InputError, Interrupted
from maskgil_jax.runtime.options import Options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Options of a command that several processes can do together."""

    distributed: str = option(
        "where the run has several processes: auto (as the TPU pod, SLURM, Open MPI or Kubernetes "
        "says) or HOST:PORT,PROCESSES,INDEX with the address of process 0",
        "",
    )
    heartbeat_timeout: int = option("seconds of silence after which a process counts as lost", 100)


def start(main: Callable[[Sequence[str]], int]) -> None:
    """Run the `main` of a command as a process of its own."""
    faulthandler.enable()
    sys.exit(main(sys.argv))


def run(
    argv: Sequence[str],
    kind: type[Options],
    job: Callable[[Options], object],
    doc: str | None,
    *,
    goes_on: bool = False,
    compiles: bool = True,
) -> int:
    """Read the options of a command line and do the job with them.

    Args:
      argv: the program's name, its positional option if it has one, and its flags.
      kind: dataclass of the options (see options.py).
      job: what the command does; in several processes where its `processes` say so.
      doc: what --help says first.
      goes_on: whether the same command, when it was cut short, goes on where it was.
      compiles: whether it is said that programs are being compiled; this imports JAX, before which
        a job that is to set JAX's environment says no.

    Returns:
      The exit code: 0 the job is done; 1 unusable flags or input (one line says which); 130 or 143
      stopped by Ctrl-C or SIGTERM (in training, after a checkpoint was saved). A bug is raised.
    """
    values = options.flags_of(kind, argv)
    if {*usage.HELP} & {*argv[1:]}:
        return usage.show(usage.of_command(doc or "", values))
    if {*usage.VERSION} & {*argv[1:]}:
        return usage.show(usage.version_text())
    try:
        with _logging_to_terminal(values):
            chosen = _parsed(kind, values, argv)
            with _told_of_compiling(compiles), _joined(getattr(chosen, "processes", None)):
                job(chosen)
    except InputError as error:
        print(f"error: {with_dashes(str(error), values)}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signum
    except KeyboardInterrupt:
        hint = "; run the same command to go on" if goes_on else ""
        print(f"interrupted{hint}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _parsed(kind: type[Options], values: flags.FlagValues, argv: Sequence[str]) -> Options:
    """The options of a command line; InputError where it cannot be used."""
    if argv[0].startswith("--"):
        raise InputError(f"argv begins with {argv[0]}, expected the name of the program")
    words = options.positional(kind)
    given, rest = (argv[1:2], argv[2:]) if words else ([], argv[1:])
    if words and (not given or given[0] not in words):
        raise InputError(f"expected one of {', '.join(words)} before the options")
    try:
        unexpected = values([argv[0], *(_with_underscores(word, values) for word in rest)])[1:]
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        # ml_collections raises these for fields of a config that do not exist or do not fit.
        if "config" not in values:
            raise InputError(usage.complaint(error, values)) from None
        raise InputError(config_files.complaint(error, values, argv)) from None
    if unexpected:
        raise InputError(f"unexpected arguments {unexpected}; options are written --name=value")
    return options.parsed(kind, values, *given)


def _with_underscores(word: str, names: Any) -> str:
    """A word of a command line, a flag's name as it is defined: `--dry-run` is `--dry_run`."""
    name, equals, value = word.partition("=")
    known = name.removeprefix("--").replace("-", "_")
    is_flag = name.startswith("--") and (known in names or known.removeprefix("no") in names)
    return f"--{known}{equals}{value}" if is_flag else word


def with_dashes(message: str, names: Any) -> str:
    """A message of the library, in which arguments that are flags are written as flags.

    The library calls its arguments by their names, as in `tokenizer=DIR has 16 codes` or
    `prompts: ...` at the start.

    Args:
      message: the text.
      names: of the flags.
    """
    known = "|".join(sorted(names, key=len, reverse=True))
    message = re.sub(rf"(?<![\w.\-=])({known})=(?=[^=\s])", r"--\1=", message)
    return re.sub(rf"^({known})(?=: )", r"--\1", message)


@contextlib.contextmanager
def _joined(processes: Processes | None) -> Iterator[None]:
    if processes is None or not processes.distributed:
        yield
        return
    from maskgil_jax.runtime.processes import joined

    with joined(processes.distributed, processes.heartbeat_timeout):
        yield


@contextlib.contextmanager
def _told_of_compiling(compiles: bool) -> Iterator[None]:
    if not compiles:
        yield
        return
    from maskgil_jax.runtime.compiling import announced

    with announced():
        yield


@contextlib.contextmanager
def _logging_to_terminal(names: Any) -> Iterator[None]:
    """In this context the package logs to the terminal; `names` as in `with_dashes`."""
    handler = _BesideTheBar(names)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("maskgil_jax")
    before = log.handlers, log.propagate, log.level, absl_logging.get_verbosity()
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    # Orbax and JAX report every file and backend at level INFO: keep to their warnings.
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])
        absl_logging.set_verbosity(before[3])


class _BesideTheBar(logging.StreamHandler):
    """Writes messages above a progress bar instead of into it, as `with_dashes`."""

    def __init__(self, names: Any):
        super().__init__()
        self._names = names

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(with_dashes(self.format(record), self._names), file=sys.stderr)

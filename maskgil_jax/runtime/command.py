"""How every command starts and ends: flags, logging, one clear message, the exit code."""

import logging
import os
import signal
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging
from tqdm import tqdm

from maskgil_jax.runtime import usage
from maskgil_jax.runtime.errors import InputError, Interrupted


def run(main: Callable[..., None], verbs: tuple[str, ...] = (), *, goes_on: bool = False) -> None:
    """Parse absl flags and run `main`, with the verb before the flags where there are `verbs`.

    Exit codes: 0 the job is done; 1 unusable flags or input (one line says which), or a bug (a
    traceback); 130 or 143 stopped by Ctrl-C or SIGTERM (in training, after a checkpoint was saved).

    Args:
      main: the command's.
      verbs: of which one is the first argument.
      goes_on: whether the same command, when it was cut short, goes on where it was.
    """

    def guarded(argv: list[str]) -> int:
        if verbs and (len(argv) < 2 or argv[1] not in verbs):
            return _fail(f"expected one of {', '.join(verbs)} before the options")
        if len(argv) > 1 + bool(verbs):
            unexpected = argv[1 + bool(verbs) :]
            return _fail(f"unexpected arguments {unexpected}; options are written --name=value")
        _log_to_terminal()
        try:
            main(*argv[1:])
        except InputError as error:
            return _fail(str(error))
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            return 128 + stop.signum
        except KeyboardInterrupt:
            hint = "; run the same command to go on" if goes_on else ""
            print(f"interrupted{hint}", file=sys.stderr)
            return 128 + signal.SIGINT
        return 0

    app.run(guarded, flags_parser=_parse_flags)


def _log_to_terminal() -> None:
    # Orbax and JAX report every file and backend at level INFO: keep to their warnings.
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = _BesideTheBar()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("maskgil_jax")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


class _BesideTheBar(logging.StreamHandler):
    """Writes lines above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _parse_flags(argv: list[str]) -> list[str]:
    usage.answer(argv)
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        # ml_collections raises these for fields of a config that do not exist or do not fit.
        if "config" not in flags.FLAGS:
            sys.exit(_fail(usage.complaint(error)))
        from maskgil_jax.runtime import config_files

        sys.exit(_fail(config_files.complaint(error, argv)))


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def required(name: str) -> str:
    """The value of flag --name with `~` expanded, or an InputError where it was not given."""
    value = flags.FLAGS[name].value
    if not value:
        raise InputError(f"--{name} is missing ({flags.FLAGS[name].help})")
    return os.path.expanduser(value)


def define_process_flags() -> None:
    """The flags that in_processes reads."""
    flags.DEFINE_string(
        "distributed",
        "",
        "where the run has several processes: auto (as the TPU pod, SLURM, Open MPI or Kubernetes "
        "says) or HOST:PORT,PROCESSES,INDEX with the address of process 0",
    )
    flags.DEFINE_integer(
        "heartbeat_timeout", 100, "seconds of silence after which a process counts as lost"
    )


def in_processes(job: Callable[[], None]) -> None:
    """Do a job, as one of several processes where --distributed says so."""
    values = flags.FLAGS
    if not values.distributed:
        job()
        return
    from maskgil_jax.runtime import processes

    with processes.joined(values.distributed, values.heartbeat_timeout):
        job()

"""The runs of a report: what their directories hold."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from maskgil_jax.config import STAGES
from maskgil_jax.pretrained import model_directory
from maskgil_jax.reporting import results
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json
from maskgil_jax.training import checkpoints
from maskgil_jax.training.writer import LOG, parse_log
from maskgil_jax.workflows import study_checks

# Pictures that our commands make; others are shown where something of ours is there too.
CONFIGS = ("config.json", study_checks.CONFIG)
SAMPLES = ("grid.png", "samples.png", "reconstructions.png")
MOST_PICTURES = 24  # of a directory, so that the page can still be mailed


@dataclasses.dataclass(frozen=True)
class Run:
    """A directory and what it holds.

    Attributes:
      name: differs from that of all others.
      directory: where it is.
      config: of its stage; {} where there is none.
      log: lines of training.jsonl; None where there is no such file.
      cut_short: the last line was half-written, and is not in `log`.
      parameters: how many the trained model has; None where there is none yet.
      code: version of the code that trained it, or "".
      results: JSON that commands wrote, by file name.
      pictures: files to show.
      left_out: names of files that are not shown.
    """

    name: str
    directory: epath.Path
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]] | None
    cut_short: bool
    parameters: int | None
    code: str
    results: Mapping[str, results.Result]
    pictures: Sequence[epath.Path]
    left_out: Sequence[str]

    @property
    def is_training(self) -> bool:
        """Whether it is a work directory of training."""
        return self.log is not None or bool(self.config)

    @property
    def stage(self) -> str:
        """One of STAGES, or "" where neither config nor log tells."""
        if not self.config:
            logged = set().union(*self.log or ())
            return "tokenizer" if "psnr" in logged else "generator" if "accuracy" in logged else ""
        return str(self.config.get("stage", ""))


def gather(directories: Sequence[str], names: Sequence[str] = ()) -> list[Run]:
    """The runs in these directories; the stages of a run of several follow it.

    Args:
      directories: of runs.
      names: of them, which differ; (): the ends of their directories.

    Raises:
      InputError: a directory that is not there, is named twice or holds nothing known; a file that
        is broken or not what its name says.
    """
    resolved = [paths.absolute(directory) for directory in directories]
    for number, directory in enumerate(resolved):
        if directory in resolved[:number]:
            raise InputError(f"runs: {directory} is given twice")
        if not directory.is_dir():
            what = "a file" if directory.exists() else "not there"
            raise InputError(f"runs={directory} is {what}, expected a directory")
    runs = []
    for directory, name in zip(resolved, names or names_of(resolved), strict=True):
        configs = read_configs(directory)
        *before, last = configs or {"": {}}
        runs.append(read_run(directory, name, configs.get(last, {})))
        for stage in before:
            inner = directory / stage
            if inner.is_dir() and inner not in resolved and (inner / LOG).exists():
                runs.append(read_run(inner, f"{name}/{stage}", configs[stage]))
    return runs


def names_of(directories: Sequence[epath.Path]) -> list[str]:
    """The ends of different paths, each as long as it takes to differ from the others."""
    lengths = [1] * len(directories)
    while True:
        names = [
            "/".join(directory.parts[-length:])
            for directory, length in zip(directories, lengths, strict=True)
        ]
        if len(set(names)) == len(names):
            # File names need not be text.
            return [name.encode(errors="replace").decode() for name in names]
        lengths = [
            length + (names.count(name) > 1) for name, length in zip(names, lengths, strict=True)
        ]


def read_run(directory: epath.Path, name: str, config: Mapping[str, Any]) -> Run:
    """The run in a directory.

    Args:
      directory: of the run.
      name: of the run on the page.
      config: of its stage; {} where there is none.

    Raises:
      InputError: as `gather`.
    """
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"runs={directory} cannot be read: {error}") from None
    log, cut_short = read_log(directory / LOG)
    by_file, left_out = {}, []
    for path in files:
        if path.suffix != ".json" or path.name in CONFIGS:
            continue
        content = read_json(path)
        if result := results.recognized(path, content):
            by_file[path.name] = result
        else:
            left_out.append(path.name)
    pictures, too_many = pictures_of(directory, files, trained=log is not None)
    has_samples = any(path.name in SAMPLES for path in pictures)
    if log is None and not (config or by_file or has_samples):
        inner = sorted(path.parent.name for path in directory.glob(f"*/{LOG}"))[:5]
        raise InputError(
            f"runs={directory} holds nothing that a report shows (it has "
            f"{_listed(directory)}); expected a work directory of maskgil_jax.main, or what "
            "sample, evaluate, reconstruct, compare, sweep, scaling or plan have written"
            + (f"; runs in it, to be given one by one: {', '.join(inner)}" if inner else "")
        )
    return Run(
        name,
        directory,
        config,
        log,
        cut_short,
        model_directory.count_parameters(directory / "model"),
        checkpoints.code_of(directory / "checkpoints"),
        by_file,
        pictures,
        [*left_out, *too_many],
    )


def read_configs(directory: epath.Path) -> dict[str, Mapping[str, Any]]:
    """The configs of DIRECTORY/config.json by stage, in their order; {} where there is no file."""
    path = directory / "config.json"
    if not path.exists():
        return {}
    content = read_json(path)
    stages = content.get("stages", {"": content}) if isinstance(content, dict) else None
    configs = list(stages.values()) if isinstance(stages, dict) else [None]
    by_name = {str(c.get("stage")): c for c in configs if isinstance(c, dict)}
    if not by_name or len(by_name) < len(configs) or set(by_name) - set(STAGES):
        raise InputError(
            f"{path} is not a config of maskgil_jax.main: its stages are {sorted(by_name)}, "
            f"expected some of {', '.join(STAGES)}"
        )
    return {name: by_name[name] for name in STAGES if name in by_name}


def read_log(path: epath.Path) -> tuple[list[dict[str, Any]] | None, bool]:
    """The lines of a training log, None without one, and whether the last was cut short.

    A run that is going on, or was killed, may have written half of its last line. (Training itself
    passes over every broken line: see training.writer.read_log.)

    Raises:
      InputError: another line is broken, or not one of training.
    """
    if not path.exists():
        return None, False
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} is broken: {error}; expected lines of JSON") from None
    lines, unreadable = parse_log(content)
    last = content.rstrip().count(b"\n") + 1
    for number, line in unreadable.items():
        if number != last or content.endswith(b"\n"):
            start = line[:60].decode(errors="replace")
            raise InputError(f'{path}, line {number} is {start!r}, expected {{"step": N, ...}}')
    return lines, bool(unreadable)


def pictures_of(
    directory: epath.Path, files: Sequence[epath.Path], *, trained: bool
) -> tuple[list[epath.Path], list[str]]:
    """Pictures to show, and names of those beyond MOST_PICTURES; single samples are in neither."""
    samples = [directory / "samples" / name for name in SAMPLES]
    beside = [path for path in files if path.suffix == ".png" and not path.stem.isdecimal()]
    if trained:  # the report plots these itself
        beside = [path for path in beside if path.name != "curves.png"]
    beside.sort(key=lambda path: path.name not in SAMPLES)
    pictures = [path for path in samples if path.exists()] + beside
    return pictures[:MOST_PICTURES], [path.name for path in pictures[MOST_PICTURES:]]


def _listed(directory: epath.Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "-"

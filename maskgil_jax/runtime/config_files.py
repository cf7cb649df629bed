"""Config files: Python whose `get_config` gives a config, and flags that change its fields.

Those of the folder configs/ come with the package and go by their names: b for configs/b.py.
"""

import difflib
import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import traceback
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from maskgil_jax.runtime import usage
from maskgil_jax.runtime.errors import InputError

KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "values in brackets, as (1, 2)",
    ConfigDict: "a field in it, as --{name}.FIELD=VALUE",
}


def named() -> dict[str, pathlib.Path]:
    """The configs that come with the package, by name."""
    package = pathlib.Path(__file__).parents[1]
    # Installed they lie in the package, in a checkout beside it, where users see and edit them.
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "quickstart.py").is_file():
            found = [*sorted(folder.glob("*.py")), *sorted(folder.glob("studies/*.py"))]
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    return {}


class FileParser(flags.ArgumentParser):
    """Loads FILE or NAME, with :ARGUMENT after it or not, and says in one line what is wrong.

    Attributes:
      config: what was loaded last, whose fields the other flags change; None before.
    """

    config: ConfigDict | None = None

    def flag_type(self) -> str:
        """How absl calls its values."""
        return "config file"

    def parse(self, path: str) -> ConfigDict:
        """The config.

        Raises:
          InputError: no such file, no Python, none that gives a config, or not for this argument.
        """
        given, colon, argument = path.partition(":")
        file = _file_of(given)
        function = getattr(_loaded(file), "get_config", None)
        if not callable(function):
            raise InputError("the file has no function get_config(), as configs/b.py has")
        if colon and not inspect.signature(function).parameters:
            raise InputError(f"{argument!r} is given after the colon, and {file} takes nothing")
        try:
            config = function(*([argument] if colon else []))
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(_told(file, error)) from None
        if not isinstance(config, ConfigDict) or not {"stage", "stages", "base"} & {*config}:
            raise InputError(
                f"get_config() gives a {type(config).__name__}, expected a config built on "
                "maskgil_jax.config"
            )
        self.config = config.lock()
        return self.config


def _file_of(given: str) -> str:
    """The file that is named by its path, or as one that comes with the package."""
    configs = named()
    if os.path.isfile(given) or given not in configs:
        return given
    return str(configs[given])


def _loaded(file: str) -> ModuleType:
    if not os.path.isfile(file):
        found = "a folder" if os.path.isdir(file) else "no file"
        stem, configs = pathlib.PurePath(file).stem, named()
        near = [stem] if stem in configs else difflib.get_close_matches(stem, configs)
        hint = f"; did you mean {' or '.join(near)}, of those that come with it?" if near else ""
        raise InputError(
            f"{found} is there, expected a Python file, as configs/b.py, or the name of a config "
            f"of the package, as b{hint}"
        )
    loader = importlib.machinery.SourceFileLoader("config_file", file)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(_told(file, error)) from None
    return module


def _told(file: str, error: BaseException) -> str:
    """What went wrong in a config file, and in which of its lines."""
    if isinstance(error, SyntaxError):
        return f"not Python: {error.msg.partition(' (detected')[0]} (line {error.lineno})"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.abspath(frame.filename) == os.path.abspath(file)
    ]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


class Config(NamedTuple):
    """What a flag for a config gives.

    Attributes:
      values: the config, with the changes that were given.
      name: FILE, NAME or either with :ARGUMENT, as it was given.
    """

    values: ConfigDict
    name: str


def define(name: str, text: str, values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Define a flag for a config.

    Args:
      name: of the flag.
      text: what its help says before what holds for every config.
      values: where it is defined.
      argv: the command line, which says which fields of the config get flags of their own.
    """
    config_flags.DEFINE_config_file(
        name,
        None,
        f"{text}; --{name}.x.y=value changes a field. A config file is Python code, which runs "
        "when it is read: take none from strangers",
        flag_values=values,
        sys_argv=list(argv),
    )
    values[name].parser = FileParser()


def fields(config: ConfigDict, prefix: str = "config.") -> Iterator[str]:
    """Every field that is no section, in lines such as `config.model.layers = 12`."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} = {value!r}"


def of_flag(flag: Any) -> Config:
    """What a parsed flag for a config gives.

    Raises:
      InputError: a whole section of the config was replaced, of which fields are lost.
    """
    for name, value in config_flags.get_override_values(flag).items():
        if isinstance(value, ConfigDict):
            raise InputError(
                f"--{flag.name}.{name}: expected "
                f"{KINDS[ConfigDict].format(name=f'{flag.name}.{name}')}"
            )
    return Config(flag.value, config_flags.get_config_filename(flag))


def complaint(error: Exception, values: flags.FlagValues, argv: Sequence[str]) -> str:
    """What to say of an error of absl or ml_collections about --config and its fields.

    Args:
      error: as they raise it.
      values: the flags, of which `config` is one.
      argv: the command line.
    """
    config: ConfigDict | None = values["config"].parser.config  # type: ignore[attr-defined]
    if isinstance(error, flags.IllegalFlagValueError):
        changed, _, reason = str(error).removeprefix("flag ").partition(": ")
        kind = _kind_of(changed.partition("=")[0].removeprefix("--"), config)
        return f"{changed}: expected {kind}" if kind else f"{changed}: {reason}"
    if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config."):
        return f"--{error.flagname} is given without --config=FILE before it"
    if isinstance(error, flags.Error):
        return usage.complaint(error, values)
    given = [text for text in argv[1:] if text.lstrip("-").startswith("config.")]
    key = str(error.args[0] if error.args else error).strip("\"'")
    key = key.partition("'")[2].partition("'")[0] or key
    culprits = [text for text in given if key in text.partition("=")[0].split(".")] or given
    return f"{' '.join(culprits)}: the config has no such field{_near(culprits, config)}"


def _kind_of(name: str, config: ConfigDict | None) -> str:
    """What is expected of a field, or "" where it is no field of the config."""
    if not name.startswith("config."):
        return ""
    value: Any = config
    for part in name.split(".")[1:]:
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return next((text for kind, text in KINDS.items() if type(value) is kind), "").format(name=name)


def _near(culprits: list[str], config: ConfigDict | None) -> str:
    """A hint where the field is one of a stage of the config, or of a section of it."""
    if not culprits or config is None:
        return ""
    wanted = culprits[0].lstrip("-").partition("=")[0].partition(".")[2]
    names = sorted(_names(config), key=lambda name: name.count("."))  # the nearest first
    found = [name for name in names if name.endswith(f".{wanted}")]
    if not found:
        last = wanted.rpartition(".")[2]
        found = [name for name in names if name.rpartition(".")[2] == last]
    return (
        f"; did you mean {' or '.join(f'--config.{name}' for name in found[:3])}?" if found else ""
    )


def _names(config: ConfigDict, prefix: str = "") -> list[str]:
    """Paths of all fields, sections too."""
    found = []
    for name, value in config.items():
        found.append(f"{prefix}{name}")
        if isinstance(value, ConfigDict):
            found += _names(value, f"{prefix}{name}.")
    return found

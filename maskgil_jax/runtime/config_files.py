"""The flag --config: a Python file whose `get_config` gives a config, and changes of its fields."""

import importlib.machinery
import importlib.util
import inspect
import os
import traceback
from types import ModuleType
from typing import Any

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


class FileParser(flags.ArgumentParser):
    """Loads FILE or FILE:ARGUMENT, and says in one line what is wrong with it.

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
        file, colon, argument = path.partition(":")
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
        if not isinstance(config, ConfigDict) or not {"stage", "stages"} & {*config}:
            raise InputError(
                f"get_config() gives a {type(config).__name__}, expected a config built on "
                "maskgil_jax.config"
            )
        self.config = config.lock()
        return self.config


def _loaded(file: str) -> ModuleType:
    if not os.path.isfile(file):
        found = "a folder" if os.path.isdir(file) else "no file"
        raise InputError(f"{found} is there, expected a Python file, as configs/b.py")
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


def define(text: str) -> None:
    """Define --config, with what its help says before what holds for every config."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        f"{text}; --config.x.y=value changes a field. A config file is Python code, which runs "
        "when it is read: take none from strangers",
    )
    flags.FLAGS["config"].parser = FileParser()


def complaint(error: Exception, argv: list[str]) -> str:
    """What to say of an error of absl or ml_collections about --config and its fields.

    Args:
      error: as they raise it.
      argv: the command line.
    """
    if isinstance(error, flags.IllegalFlagValueError):
        changed, _, reason = str(error).removeprefix("flag ").partition(": ")
        kind = _kind_of(changed.partition("=")[0].removeprefix("--"))
        return f"{changed}: expected {kind}" if kind else f"{changed}: {reason}"
    if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config."):
        return f"--{error.flagname} is given without --config=FILE before it"
    if isinstance(error, flags.Error):
        return usage.complaint(error)
    given = [text for text in argv[1:] if text.lstrip("-").startswith("config.")]
    key = str(error.args[0] if error.args else error).strip("\"'")
    key = key.partition("'")[2].partition("'")[0] or key
    culprits = [text for text in given if key in text.partition("=")[0].split(".")] or given
    return f"{' '.join(culprits)}: the config has no such field{_near(culprits)}"


def check_sections(config_flag: Any) -> None:
    """Raise InputError where a whole section of the config was replaced, of which fields are lost.

    Args:
      config_flag: flags.FLAGS["config"], parsed.
    """
    for name, value in config_flags.get_override_values(config_flag).items():
        if isinstance(value, ConfigDict):
            raise InputError(
                f"--config.{name}: expected {KINDS[ConfigDict].format(name=f'config.{name}')}"
            )


def _config() -> ConfigDict | None:
    parser: Any = flags.FLAGS["config"].parser
    return parser.config


def _field(name: str) -> Any:
    """The value of the field `config.x.y` in the config that was loaded, or None."""
    value: Any = _config()
    for part in name.split(".")[1:]:
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return value


def _kind_of(name: str) -> str:
    """What is expected of a field, or "" where it is no field of the config."""
    if not name.startswith("config."):
        return ""
    value = _field(name)
    return next((text for kind, text in KINDS.items() if type(value) is kind), "").format(name=name)


def _near(culprits: list[str]) -> str:
    """A hint where the field is one of a stage of the config, or of a section of it."""
    config = _config()
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

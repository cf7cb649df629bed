"""Options of commands: frozen dataclasses, of which each field is a flag and says what it means.

A field of another such dataclass brings that one's flags along, so commands share them.
"""

import dataclasses
import os
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from absl import flags

from maskgil_jax.runtime import config_files
from maskgil_jax.runtime.errors import InputError

Options = TypeVar("Options")


class Meaning(NamedTuple):
    """What `option` notes of a field.

    Attributes:
      text: as --help shows it.
      choices: the values that there are; empty: any.
      least: the smallest number.
      repeated: the flag may be given several times, and commas separate nothing.
      positional: the value stands before all flags, without a name.
      unless: a flag beside which the value, without a default, need not be given.
    """

    text: str
    choices: tuple[str, ...]
    least: float | None
    repeated: bool
    positional: bool
    unless: str


def option(
    text: str,
    default: Any = dataclasses.MISSING,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    repeated: bool = False,
    positional: bool = False,
    unless: str = "",
) -> Any:
    """A field of a dataclass of options; without a default it has to be given."""
    meaning = Meaning(text, choices, least, repeated, positional, unless)
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def flags_of(options: type, argv: Sequence[str] = ()) -> flags.FlagValues:
    """The flags of a dataclass of options, none of them parsed.

    Args:
      options: bool, int, float, str, `tuple[int, ...]`, `tuple[str, ...]` (with commas in between)
        and `config_files.Config` are the types that its fields may have, and None beside them.
      argv: the command line, in which a config's flag looks for changes of its fields.
    """
    values = flags.FlagValues()
    for name, kind, meaning, default, _ in _fields(options):
        if meaning.positional:
            continue
        common: dict[str, Any] = {"flag_values": values}
        bounds = {**common, "lower_bound": meaning.least}
        if kind is config_files.Config:
            config_files.define(name, meaning.text, values, argv)
        elif meaning.choices:
            flags.DEFINE_enum(name, default, list(meaning.choices), meaning.text, **common)
        elif kind is bool:
            flags.DEFINE_bool(name, default, meaning.text, **common)
        elif kind is int:
            flags.DEFINE_integer(name, default, meaning.text, **bounds)
        elif kind is float:
            flags.DEFINE_float(name, default, meaning.text, **bounds)
        elif kind is str:
            flags.DEFINE_string(name, default, meaning.text, **common)
        elif meaning.repeated:
            flags.DEFINE_multi_string(name, list(default or ()), meaning.text, **common)
        else:
            flags.DEFINE_list(name, list(default or ()), meaning.text, **common)
    return values


def parsed(options: type[Options], values: flags.FlagValues, positional: str = "") -> Options:
    """The options that parsed flags ask for; in texts a leading `~` becomes the home directory.

    Args:
      options: the dataclass.
      values: what `flags_of` gives for it, parsed.
      positional: the value of its positional field, if it has one.

    Raises:
      InputError: a flag that has to be given is missing, or a list is not of whole numbers.
    """
    given = {field.name: _value(field, values, positional) for field in _fields(options)}
    chosen: Options = _built(options, given)
    return chosen


def positional(options: type) -> tuple[str, ...]:
    """The values that the positional field may have; none where there is no such field."""
    return next(
        (field.meaning.choices for field in _fields(options) if field.meaning.positional), ()
    )


class Field(NamedTuple):
    """A field of a dataclass of options or of one in it: `kind` is its type without None."""

    name: str
    kind: Any
    meaning: Meaning
    default: Any
    required: bool


def _fields(options: type) -> Iterator[Field]:
    kinds = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = kinds[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _fields(kind)  # type: ignore[arg-type]
            continue
        required = field.default is dataclasses.MISSING
        possible = [one for one in typing.get_args(kind) if one is not type(None)]
        kind = possible[0] if type(None) in typing.get_args(kind) else kind
        default = None if required else field.default
        yield Field(field.name, kind, field.metadata["meaning"], default, required)


def _value(field: Field, values: flags.FlagValues, positional: str) -> Any:
    if field.meaning.positional:
        return positional
    flag = values[field.name]
    if field.required and not flag.value:
        if field.meaning.unless and values[field.meaning.unless].value:
            return ""
        raise InputError(f"--{field.name} is missing ({field.meaning.text})")
    if field.kind is config_files.Config:
        return config_files.of_flag(flag)
    if isinstance(flag.value, list):
        if field.kind == tuple[int, ...]:
            return _whole_numbers(field.name, flag.value)
        return tuple(map(os.path.expanduser, flag.value))
    return os.path.expanduser(flag.value) if isinstance(flag.value, str) else flag.value


def _whole_numbers(name: str, texts: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise InputError(f"--{name}={','.join(texts)}: expected whole numbers") from None


def _built(options: Any, given: dict[str, Any]) -> Any:
    kinds = typing.get_type_hints(options)
    arguments = {
        name: _built(kind, given) if dataclasses.is_dataclass(kind) else given[name]
        for name, kind in kinds.items()
    }
    return options(**arguments)

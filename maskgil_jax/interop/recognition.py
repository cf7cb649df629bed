"""Recognise the network that the tensors of a source belong to: its config and its names."""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from maskgil_jax.interop import description, engine, names
from maskgil_jax.interop.engine import Tensors
from maskgil_jax.interop.files import Content
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

FIELDS = {"classes": "num_classes"}  # of configs, where the argument has another name
# Arguments, and settings of foreign files that mean the same.
SETTINGS = (("heads", "num_attention_heads"), ("heads", "encoder_attention_heads"))
LAYERS = ("layers", "encoder_layers", "decoder_layers")  # of configs and settings
VALUES = {int: "a number", tuple: "HxW, as 16x16", str: "a word"}


class Recognised(NamedTuple):
    """The network that a source holds.

    Attributes:
      config: of the network.
      provenance: what a Generator is made with beside its network.
      tensors: those of the network, by the format's names.
    """

    config: Any
    provenance: dict[str, Any]
    tensors: Tensors


def check_arguments(format_name: str, family: ModuleType, arguments: Mapping[str, Any]) -> None:
    """Raise InputError for an argument of a name or a kind of value that a format does not take."""
    taken = _taken(family)
    known = sorted([*taken, "weights", *companions(family)])
    for name, value in arguments.items():
        if name not in known:
            raise InputError(f"arg: unknown {name!r}, {format_name} takes {', '.join(known)}")
        expected: Any = type(taken.get(name, ""))
        if not isinstance(value, expected):
            raise InputError(f"arg={name}: {value!r}, expected {VALUES[expected]}")
        if expected is int and value < 1 and name != "layer":
            raise InputError(f"arg={name}: {value}, expected 1 or more")


def recognise(
    format_name: str,
    family: ModuleType,
    source: str,
    content: Content,
    arguments: dict[str, Any],
    weights: str,
) -> Recognised:
    """The network that tensors belong to, whatever stands before their names.

    Args:
      format_name: of the family.
      family: module of the format.
      source: what to name in messages.
      content: of the source.
      arguments: settings given by the user, after `check_arguments`, without `weights`.
      weights: name of the set of weights to take, or "".

    Raises:
      InputError: the tensors do not fit, several sets of them do, or a layer is missing.
    """

    def fit(tensors: Tensors) -> Recognised:
        return _fit(format_name, family, tensors, content, arguments)

    recognised = names.fitting(source, content.tensors, family.ANCHORS, weights, fit)
    _check_layers(source, recognised.config, content.metadata)
    _log_assumptions(source, family, recognised.config, content.metadata, arguments)
    return recognised


def _fit(
    format_name: str,
    family: ModuleType,
    tensors: Tensors,
    content: Content,
    arguments: dict[str, Any],
) -> Recognised:
    """The network of exactly these tensors; InputError, as of `_made`, where they do not fit."""
    described = description.read(content.metadata, family.CONFIG, len(content.tensors))
    if described:
        fields = {FIELDS.get(name, name): value for name, value in arguments.items()}
        config = _made(format_name, lambda: dataclasses.replace(described.config, **fields))
    else:
        config = _made(
            format_name, lambda: _config_of(family, tensors, content.metadata, arguments)
        )
    entries = _made(format_name, lambda: family.entries(config))
    if problems := engine.misfits(entries, tensors, family.IGNORED):
        raise InputError(
            f"is not {format_name}, the tensors do not fit:\n  " + "\n  ".join(problems)
        )
    return Recognised(config, described.provenance if described else {}, tensors)


def _log_assumptions(
    source: str,
    family: ModuleType,
    config: Any,
    metadata: Mapping[str, Any],
    arguments: dict[str, Any],
) -> None:
    """Say which settings neither tensors nor files nor arguments show."""
    given = {*metadata, *arguments, *(name for name, x in SETTINGS if x in metadata)}
    assumed = [text for name, text in arguments_of(family, config).items() if name not in given]
    if assumed and description.KEY not in metadata:
        log.info(
            "%s: its tensors do not show all settings; assumed %s, give others, if they are wrong",
            source,
            " ".join(assumed),
        )


def companions(family: ModuleType) -> tuple[str, ...]:
    """Names of arguments of a format that are model directories."""
    return getattr(family, "COMPANIONS", ())


def arguments_of(family: ModuleType, config: Any) -> dict[str, str]:
    """Arguments, as `arg=heads=4`, for all settings that tensors do not show, by their names."""
    spelled = {}
    for name in _taken(family):
        value = getattr(config, FIELDS.get(name, name))
        text = "x".join(map(str, value)) if isinstance(value, tuple) else value
        spelled[name] = f"arg={name}={text}"
    return spelled


def _taken(family: ModuleType) -> dict[str, Any]:
    """Names and defaults of the arguments that a format takes, beside `weights`."""
    parameters = inspect.signature(family.config).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("tensors", "metadata")
    }


def _config_of(
    family: ModuleType,
    tensors: Tensors,
    metadata: Mapping[str, Any],
    arguments: dict[str, Any],
) -> Any:
    """The config of a network that was not written by this package."""
    taken = _taken(family)
    settings = {name: x for name, x in metadata.items() if name in taken and isinstance(x, int)}
    more = inspect.signature(family.config).parameters
    beside = {"metadata": metadata} if "metadata" in more else {}
    return family.config(tensors, **beside, **(settings | arguments))


def _made(format_name: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; an InputError, whose message follows "source X", where it fails."""
    try:
        return make()
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"is not {format_name}: it has no {error}") from None
    except (TypeError, ValueError, ArithmeticError, IndexError, AttributeError) as error:
        raise InputError(f"as {format_name}: {error}") from None


def _check_layers(source: str, config: Any, metadata: Mapping[str, Any]) -> None:
    """Raise InputError where a network has another number of layers than its settings say."""
    for name in LAYERS:
        expected, count = metadata.get(name), getattr(config, name, None)
        if isinstance(expected, int) and count is not None and expected != count:
            raise InputError(
                f"source={source} has tensors of {count} {name.replace('_', ' ')}, but its "
                f"settings say {expected}: some are missing"
            )

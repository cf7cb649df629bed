"""What network the tensors of a source are: of which config, under which names."""

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

FIELDS = {"classes": "num_classes"}  # of configs, where --arg has another name
# --arg, and settings of foreign files that say the same.
TOLD_AS = (("heads", "num_attention_heads"), ("heads", "encoder_attention_heads"))
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
    """Raise InputError for a name or a kind of value of --arg that a format does not take."""
    taken = _taken(family)
    known = sorted([*taken, "weights"])
    for name, value in arguments.items():
        if name not in known:
            raise InputError(f"arguments: unknown {name!r}, {format_name} takes {', '.join(known)}")
        expected: Any = type(taken.get(name, ""))
        if not isinstance(value, expected):
            raise InputError(f"argument {name}: {value!r}, expected {VALUES[expected]}")
        if expected is int and value < 1 and name != "layer":
            raise InputError(f"argument {name}: {value}, expected 1 or more")


def recognise(
    format_name: str,
    family: ModuleType,
    source: str,
    content: Content,
    arguments: dict[str, Any],
    weights: str,
) -> Recognised:
    """The network that tensors are, whatever stands before their names.

    Args:
      format_name: of the family.
      family: module of the format.
      source: what to name in messages.
      content: of the source.
      arguments: what was told by --arg, after `check_arguments`, but for `weights`.
      weights: name of the set of weights to take, or "".

    Raises:
      InputError: the tensors do not fit, several sets of them do, or a layer is missing.
    """

    def fit(tensors: Tensors) -> Recognised:
        told = description.read(content.metadata, family.CONFIG, len(content.tensors))
        if told:
            fields = {FIELDS.get(name, name): value for name, value in arguments.items()}
            config = _made(format_name, lambda: dataclasses.replace(told.config, **fields))
        else:
            config = _made(
                format_name, lambda: _untold(family, tensors, content.metadata, arguments)
            )
        entries = _made(format_name, lambda: family.entries(config))
        if problems := engine.misfits(entries, tensors, family.IGNORED):
            raise InputError(
                f"is not {format_name}, the tensors do not fit:\n  " + "\n  ".join(problems)
            )
        return Recognised(config, told.provenance if told else {}, tensors)

    found = names.fitting(source, content.tensors, family.ANCHORS, weights, fit)
    _check_layers(source, found.config, content.metadata)
    told = {*content.metadata, *arguments, *(name for name, x in TOLD_AS if x in content.metadata)}
    assumed = [
        text for name, text in arguments_of(family, found.config).items() if name not in told
    ]
    if assumed and description.KEY not in told:
        log.info(
            "%s: its tensors do not tell all; assumed %s, give what else is right",
            source,
            " ".join(assumed),
        )
    return found


def arguments_of(family: ModuleType, config: Any) -> dict[str, str]:
    """What tells a format all that the tensors of this network do not, by the names of --arg."""
    spelled = {}
    for name in _taken(family):
        value = getattr(config, FIELDS.get(name, name))
        shown = "x".join(map(str, value)) if isinstance(value, tuple) else value
        spelled[name] = f"{name}={shown}"
    return spelled


def _taken(family: ModuleType) -> dict[str, Any]:
    """Names and defaults of what a format can be told by --arg beside the weights to take."""
    parameters = inspect.signature(family.config).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("tensors", "metadata")
    }


def _untold(
    family: ModuleType,
    tensors: Tensors,
    metadata: Mapping[str, Any],
    arguments: dict[str, Any],
) -> Any:
    """The config of a network that was not written by this package."""
    taken = _taken(family)
    told = {name: x for name, x in metadata.items() if name in taken and isinstance(x, int)}
    more = inspect.signature(family.config).parameters
    beside = {"metadata": metadata} if "metadata" in more else {}
    return family.config(tensors, **beside, **(told | arguments))


def _made(format_name: str, make: Callable[[], Any]) -> Any:
    """What `make` makes; an InputError says why there is none, as a verb for a source."""
    try:
        return make()
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"is not {format_name}: it has no {error}") from None
    except (TypeError, ValueError, ArithmeticError, IndexError, AttributeError) as error:
        raise InputError(f"as {format_name}: {error}") from None


def _check_layers(source: str, config: Any, metadata: Mapping[str, Any]) -> None:
    """Raise InputError where a network has other layers than its settings say."""
    for name in LAYERS:
        told, found = metadata.get(name), getattr(config, name, None)
        if isinstance(told, int) and found is not None and told != found:
            raise InputError(
                f"source {source} has tensors of {found} {name.replace('_', ' ')}, but its "
                f"settings say {told}: a part of it is missing"
            )

"""Choose among the state dicts in a PyTorch file."""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from maskgil_jax.interop import names, torch_files
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

DEPTH = 3  # of dicts within one another in which state dicts are looked for
StateDict = dict[str, Any]


def choose(path: str, content: Any, family: Any, weights: str) -> StateDict:
    """The state dict that is meant; a line says which, where there are others.

    Args:
      path: of the file.
      content: of the file, as `torch_files.load` gives it.
      family: module of the format, as for `files.read`.
      weights: name of a set of weights: of a state dict, or of tensors within one (see
        names.fitting); "" for the first one of the format's STATE_DICT_KEYS, or else the only one.

    Raises:
      InputError: no state dict, no such weights, or several that may be meant.
    """
    states = _state_dicts(content) if isinstance(content, dict) else {}
    if not states:
        raise InputError(
            f"source={path} holds {_content(content)}; expected tensors by their names, alone or "
            f"under one of {[key for key in family.STATE_DICT_KEYS if key]}"
            + (torch_files.advice(path) if _has_objects(content) else "")
        )
    name = weights if weights and weights in states else _usual(path, content, states, family)
    state = states[name]
    if weights and weights != name and not _within(name, state, weights):
        raise InputError(
            f"arg=weights={weights}: source={path} holds {list(states)}, expected one of them"
            if any(states)
            else f"arg=weights={weights}: source={path} holds one set, of {_some(state)}"
        )
    _say(path, name, content, [other for other in states if _may_be(states[other], family)])
    return state


def _state_dicts(content: Mapping[Any, Any], prefix: str = "", depth: int = 1) -> dict[str, Any]:
    """Dicts that hold tensors by their names, by the keys that lead to them with dots between."""
    states: dict[str, StateDict] = {}
    texts = {key: value for key, value in content.items() if isinstance(key, str)}
    if any(torch_files.is_tensor(value) for value in texts.values()):
        states[prefix] = texts
    for key, value in texts.items():
        if isinstance(value, dict) and depth < DEPTH:
            states |= _state_dicts(value, f"{prefix}.{key}" if prefix else key, depth + 1)
    return states


def _usual(
    path: str, content: Mapping[Any, Any], states: Mapping[str, StateDict], family: Any
) -> str:
    candidates = list(states)
    for key in family.STATE_DICT_KEYS:
        if key in states:
            return str(key)
        if isinstance(content.get(key), torch_files.StandIn):
            raise InputError(
                f"source={path} holds {_content(content)}, and {key} is no state dict: "
                f"arg=weights=NAME takes those that are, {_some(states)}"
                f"{torch_files.advice(path)}"
            )
        if within := [name for name in states if key and name.startswith(f"{key}.")]:
            candidates = within
            break
    fitting = [name for name in candidates if _may_be(states[name], family)]
    candidates = fitting or candidates
    if len(candidates) > 1:
        raise InputError(
            f"source={path} holds several sets of weights, {_some(candidates)}: choose one by "
            f"arg=weights=NAME, as arg=weights={candidates[0]}"
        )
    return candidates[0]


def _may_be(state: StateDict, family: Any) -> bool:
    return bool(names.prefixes(map(names.without_wrappers, state), family.ANCHORS))


def _within(name: str, state: StateDict, weights: str) -> bool:
    """Whether a state dict of another name may hold the weights of this name."""
    if weights == "model" and "ema" in re.split(r"[._]", name.lower()):
        return False
    return names.holds(state, weights)


def _has_objects(content: Any, depth: int = 0) -> bool:
    """Whether among the outer values there is something that PyTorch itself could make more of."""
    if isinstance(content, dict) and depth < DEPTH:
        return any(_has_objects(value, depth + 1) for value in content.values())
    return isinstance(content, torch_files.StandIn)


def _content(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {_kind(content)}"
    held = [f"{key} ({_kind(value)})" for key, value in content.items()]
    return ", ".join(sorted(held)[:12]) or "nothing"


def _say(path: str, name: str, content: Mapping[Any, Any], fitting: list[str]) -> None:
    others = [f"arg=weights={other}" for other in fitting if other not in (name, "")]
    if name or others:
        more = f"; it holds others too: {', '.join(others[:8])}" if others else ""
        log.info("%s: took the weights %r%s", path, name or "at its top", more)
    rest = {key: value for key, value in content.items() if isinstance(value, torch_files.StandIn)}
    if rest:
        kinds = ", ".join(f"{key} ({_kind(value)})" for key, value in rest.items())
        log.info("%s: passed over what holds no tensors, nothing of it was run: %s", path, kinds)


def _some(keys: Iterable[str]) -> str:
    return names.some(map(repr, keys), most=8)


def _kind(value: Any) -> str:
    if isinstance(value, dict) and value:
        return f"dict of {_name_of_type(next(iter(value.values())))}"
    return _name_of_type(value)


def _name_of_type(value: Any) -> str:
    return value.name if isinstance(value, torch_files.StandIn) else type(value).__name__

"""Names of tensors: what wrappers, averages and modules around a network put before them."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

Tensors = dict[str, np.ndarray]
Result = TypeVar("Result")

# Of torch.compile, DistributedDataParallel and DeepSpeed, FSDP, activation checkpointing; they may
# stand around the network or around any module of it.
WRAPPERS = {
    "_orig_mod",
    "module",
    "_module",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}
AVERAGED = "model_ema."  # of averaged copies in Lightning files; their names have lost all dots


def without_wrappers(name: str) -> str:
    """A name without what wrappers put into it."""
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def averaged(path: str, tensors: Tensors, weights: str) -> Tensors:
    """Tensors by names without wrappers; averaged copies of Lightning in place of the raw ones.

    Args:
      path: of the file.
      tensors: as the file has them.
      weights: "model" takes the raw ones.

    Raises:
      InputError: averaged copies were chosen and there are none, or they belong to no tensor.
    """
    bare = {name: without_wrappers(name) for name in tensors}
    if len(set(bare.values())) < len(bare):  # wrapped and unwrapped: see `fitting`
        bare = {name: name for name in tensors}
    renamed = {bare[name]: x for name, x in tensors.items()}
    copies = {name for name in renamed if name.startswith(AVERAGED)}
    raw = {name: ours for name, ours in bare.items() if ours not in copies}
    copy_of = {}
    for name, ours in raw.items():
        for spelled in (ours, name):
            copy = AVERAGED + spelled.replace(".", "")
            if copy in copies:
                copy_of[ours] = copy
    if not copy_of:
        return renamed
    which = "raw weights" if weights == "model" else "averaged weights"
    log.info(
        "%s: took the %s (it has averaged copies of %d of %d tensors, %s*); arg=weights=%s takes "
        "the others",
        path,
        which,
        len(copy_of),
        len(raw),
        AVERAGED,
        "ema" if weights == "model" else "model",
    )
    if weights == "model":
        copy_of = {}
    return {ours: renamed[copy_of.get(ours, ours)] for ours in raw.values()}


def holds(names: Iterable[str], weights: str) -> bool:
    """Whether among tensors of these names there may be a set of weights of this name."""
    if weights in ("", "model"):  # the usual or the raw ones
        return True
    beginnings = (f"{weights}.", f"{weights}/", *([AVERAGED] if weights == "ema" else []))
    spellings = (spelling for name in names for spelling in (name, without_wrappers(name)))
    return any(name.startswith(beginnings) for name in spellings)


def check_holds(path: str, names: Iterable[str], weights: str) -> None:
    """Raise InputError unless a file has weights of this name, as `holds` says."""
    if not holds(names, weights):
        raise InputError(
            f"arg=weights={weights}: source={path} has no tensors {weights}.*; it holds "
            f"{some(names)}"
        )


def prefixes(names: Iterable[str], anchors: Iterable[str]) -> list[str]:
    """What stands before a tensor that a network needs, "" among them where nothing does."""
    pattern = re.compile(rf"(.*[./])?({'|'.join(map(re.escape, anchors))})")
    matches = [pattern.fullmatch(name) for name in names]
    return sorted({match[1] or "" for match in matches if match})


def fitting(
    source: str,
    tensors: Mapping[str, np.ndarray],
    anchors: Iterable[str],
    weights: str,
    fit: Callable[[Tensors], Result],
) -> Result:
    """What `fit` makes of the tensors of a network, whose names lose the prefix that they have.

    Args:
      source: what to name in messages.
      tensors: by foreign name.
      anchors: tensors of which the network needs one.
      weights: the prefix to take, without its last dot, where several are fitting; "model" where
        one is "".
      fit: what to do with the tensors of the network alone; raises InputError where they do not
        fit.

    Raises:
      InputError: nothing fits, or several sets of tensors do.
    """
    there = prefixes(tensors, anchors)
    if not there:
        raise InputError(
            f"source={source} does not fit: none of its {len(tensors)} tensors is "
            f"{' or '.join(anchors)}; it holds {some(tensors)}"
        )
    sets = {prefix: _under(tensors, prefix, there) for prefix in there}
    called = {prefix: prefix[:-1] for prefix in there}
    if "" in there:
        called[""] = "top" if "model" in called.values() else "model"
    if weights in called.values():
        there = [prefix for prefix in there if called[prefix] == weights]
    results, errors = {}, {}
    for prefix in there:
        try:
            results[prefix] = fit(sets[prefix])
        except InputError as error:
            errors[prefix] = error
    if len(results) > 1:
        several = [called[prefix] for prefix in results]
        raise InputError(
            f"source={source} holds several sets of weights that fit, {', '.join(several)}: "
            f"choose one by arg=weights=NAME, as arg=weights={several[0]}"
        )
    if not results:
        prefix, reason = next(iter(errors.items()))
        of = f", its tensors {prefix}*," if prefix else ""
        held = "" if "\n" in str(reason) else f" ({len(tensors)} tensors: {some(tensors)})"
        raise InputError(f"source={source}{of} {reason}{held}")
    ((prefix, result),) = results.items()
    _say(source, tensors, prefix, sets[prefix])
    return result


def _under(tensors: Mapping[str, np.ndarray], prefix: str, there: list[str]) -> Tensors:
    """The tensors of a prefix, which is taken off, but those of longer prefixes."""
    longer = tuple(other for other in there if other != prefix and other.startswith(prefix))
    return {
        name.removeprefix(prefix): x
        for name, x in tensors.items()
        if name.startswith(prefix) and not (longer and name.startswith(longer))
    }


def _say(source: str, tensors: Mapping[str, Any], prefix: str, taken: Mapping[str, Any]) -> None:
    if prefix:
        log.info("%s: took the prefix %r off the names of %d tensors", source, prefix, len(taken))
    full = {prefix + name for name in taken}
    if left := [name for name in tensors if name not in full]:
        log.info("%s: left out %d other tensors, %s", source, len(left), some(left))


def some(names: Iterable[str], most: int = 4) -> str:
    """The first few of names, and how many there are besides, for messages."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")

"""Names of the images of code shards that could not be read, in a file beside each shard."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError


def _path(shard: epath.Path) -> epath.Path:
    return shard.with_name(shard.name + ".unreadable.json")


def write(shard: epath.Path, faults: Sequence[str]) -> None:
    """Keep which images of a shard are left out and why; without any there is no file."""
    if faults:
        files.write_json(_path(shard), list(faults))
    else:
        _path(shard).unlink(missing_ok=True)


def read(shards: Iterable[epath.Path]) -> list[str]:
    """Names of the unreadable images of these shards, in their order.

    Raises:
      InputError: one of the files is damaged.
    """
    with ThreadPoolExecutor(16) as pool:
        return [fault for faults in pool.map(_read, shards) for fault in faults]


def _read(shard: epath.Path) -> list[str]:
    try:
        faults = files.read_json(_path(shard))
    except FileNotFoundError:
        return []
    if not isinstance(faults, list) or not all(isinstance(fault, str) for fault in faults):
        raise InputError(
            f"{_path(shard)} holds {json.dumps(faults)[:40]}, expected a list of texts; remove it "
            f"and {shard.name} and run maskgil_jax.tokenize again"
        )
    return faults

"""Paths on this machine and in cloud storage (gs://BUCKET/...)."""

import os

from etils import epath

from maskgil_jax.runtime.errors import InputError


def is_remote(path: epath.PathLike) -> bool:
    """Whether it is in cloud storage, where files are written atomically, never appended to."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root; a remote one is that already.

    Raises:
      InputError: what no path can be.
    """
    if not isinstance(path, str | os.PathLike) or os.fspath(path) == "" or "\0" in os.fspath(path):
        raise InputError(f"{path!r} is no path: expected the text of one, such as 'RUN/model'")
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().resolve()

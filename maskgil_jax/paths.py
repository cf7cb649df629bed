"""Paths on this machine and in buckets (gs://BUCKET/...)."""

import os

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether the path is in a bucket, where files are written whole and never appended to."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root; a remote one is that already."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().resolve()

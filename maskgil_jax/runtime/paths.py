"""Paths on this machine and in cloud storage (gs://BUCKET/...)."""

import json
import os
import sys

from etils import epath

from maskgil_jax.runtime.errors import InputError

# gcsfs, through which etils reads buckets, keeps every listing for ever: a file that another
# process, or a copy made beside a listing, put there later would never be seen. Its file system
# is made at the first remote path, so the setting has to be there before; a user's own wins.
os.environ.setdefault("FSSPEC_GCS", json.dumps({"use_listings_cache": False}))
if "fsspec" in sys.modules:  # it has read the environment already
    from fsspec import config

    config.set_conf_env(config.conf)


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

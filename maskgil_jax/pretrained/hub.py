"""Model directories on the Hugging Face Hub: hf://USER/NAME, hf://USER/NAME@REVISION/FOLDER."""

import functools
import os
import re

from etils import epath

from maskgil_jax.runtime.errors import InputError

SCHEME = "hf://"
_NAME = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<folder>[\w./-]*))?"
)


def fetched(directory: epath.PathLike) -> epath.PathLike:
    """Where a directory lies: one of the Hub is downloaded, unless it is in the cache already.

    Raises:
      InputError: no name of one, or it cannot be downloaded; or huggingface_hub is not installed.
    """
    if not isinstance(directory, str) or not directory.startswith(SCHEME):
        return directory
    named = _NAME.fullmatch(directory.removeprefix(SCHEME))
    if named is None:
        raise InputError(f"{directory}: expected hf://USER/NAME, or hf://USER/NAME@REVISION/FOLDER")
    return os.path.join(_snapshot(named["repository"], named["revision"]), named["folder"] or "")


@functools.cache  # so that a command reads one revision, whatever is uploaded meanwhile
def _snapshot(repository: str, revision: str | None) -> str:
    try:
        import huggingface_hub
        from huggingface_hub.errors import RevisionNotFoundError
    except ImportError:
        raise InputError(
            f"{SCHEME}{repository} needs huggingface_hub: pip install 'maskgil_jax[hub]'"
        ) from None
    try:
        return os.fspath(huggingface_hub.snapshot_download(repository, revision=revision))
    except RevisionNotFoundError:
        raise InputError(f"{SCHEME}{repository} has no revision {revision!r}") from None
    except (OSError, ValueError) as error:  # those of huggingface_hub are of these kinds
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"{SCHEME}{repository} cannot be downloaded: {cause}") from None

"""A folder that an export writes: whole, or not there."""

import contextlib
import logging
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


@contextlib.contextmanager
def written(output: str) -> Iterator[pathlib.Path]:
    """A folder to write into, which takes its name when the body is done.

    Raises:
      InputError: something of that name is there, or it cannot be written.
    """
    final = pathlib.Path(output).absolute()
    if final.exists():
        raise InputError(f"output={output} exists; choose another directory or remove it")
    folder = final.with_name(f"{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(final)
    except OSError as error:
        raise InputError(f"output={output} cannot be written: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    log.info("wrote %s", output)

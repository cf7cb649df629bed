"""Where a run's numbers and pictures go beside its log: TensorBoard, Weights & Biases, yours."""

import importlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from etils import epath

from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import write_bytes

WANDB = "wandb"
WANDB_ID = "wandb.id"  # of the run there, in the work directory: a resumed run goes on with it


class Tracker(Protocol):
    """What `config.tracker` makes; process 0 alone has one."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step by name, not all of them finite."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Take the pictures of a step by name, uint8 [H, W, 3]."""

    def close(self) -> None:
        """The run ends, or stops."""


class Start(NamedTuple):
    """What a tracker is made of.

    Attributes:
      directory: the work directory.
      config: of the stage, JSON-able.
      step: that is done already; what was tracked after it is done again.
    """

    directory: str
    config: dict[str, Any]
    step: int


Make = Callable[[Start], Tracker]


def named(name: str) -> Make | None:
    """What makes the tracker that `config.tracker` names; None for "".

    Args:
      name: "wandb" or "wandb:PROJECT"; or MODULE:FUNCTION of your own, which takes a Start and
        gives a Tracker.

    Raises:
      InputError: it is not there, or wandb is not installed.
    """
    if not name:
        return None
    module, _, function = name.partition(":")
    if module == WANDB:
        _import_wandb()
        return lambda start: WeightsAndBiases(start, function or "maskgil_jax")
    try:
        make: Make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"config.tracker = {name!r}: {error}; expected wandb, wandb:PROJECT or MODULE:FUNCTION"
        ) from None
    return make


class TensorBoard:
    """Events in DIRECTORY/tensorboard."""

    def __init__(self, start: Start):
        # Here, since it loads PyTorch where that is installed, which takes a second.
        from tensorboardX import SummaryWriter

        purge = start.step + 1 if start.step else None
        self._board = SummaryWriter(str(epath.Path(start.directory) / "tensorboard"), purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As Tracker.scalars."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """As Tracker.pictures."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")
        self._board.flush()

    def close(self) -> None:
        """As Tracker.close."""
        self._board.close()


class WeightsAndBiases:
    """A run of a project of Weights & Biases; WANDB_MODE=offline keeps it in the work directory."""

    def __init__(self, start: Start, project: str):
        directory = epath.Path(start.directory)
        file = directory / WANDB_ID
        if not (start.step and file.exists()):
            write_bytes(file, uuid.uuid4().hex[:16].encode())
        local = not paths.is_remote(directory)
        self._wandb = _import_wandb()
        self._run = self._wandb.init(
            project=project,
            name=directory.name,
            dir=str(directory) if local else None,
            config=start.config,
            id=file.read_text(),
            resume="allow",
        )
        # Steps that are done again after a stop are logged again: its own count only grows.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As Tracker.scalars."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """As Tracker.pictures."""
        images = {name: self._wandb.Image(picture) for name, picture in pictures.items()}
        self._run.log({"step": step, **images})

    def close(self) -> None:
        """As Tracker.close."""
        self._run.finish()


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise InputError(
            "config.tracker = 'wandb' needs wandb: pip install 'maskgil_jax[wandb]'"
        ) from None
    return wandb

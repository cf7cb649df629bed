"""Models and conditions on the devices of this process, each of which draws images of its own."""

import copy
import dataclasses
import logging
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from maskgil_jax.generation.samplers import Conditions
from maskgil_jax.runtime import each_device, sharding
from maskgil_jax.runtime.batches import even_batch

log = logging.getLogger("maskgil_jax")


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where images are drawn, and how many at once.

    Attributes:
      mesh: devices of this process that hold a model whole each; None: those that share one.
      rows: images at once on each.
    """

    mesh: Mesh | None
    rows: int

    @property
    def count(self) -> int:
        """Devices, or groups of those that share a model, that draw side by side."""
        return 1 if self.mesh is None else self.mesh.size

    def placed(self, model: Any) -> Any:
        """A Generator or Tokenizer whose weights each device holds; as it is where they share."""
        return model if self.mesh is None else over_devices(model, self.mesh)

    def split(self, conditions: Conditions) -> Conditions:
        """Conditions of as many labels as images are drawn at once, on the devices that draw.

        Those of each device are computed by themselves, so that no other number of devices
        changes them.
        """
        if self.mesh is None:
            return conditions
        return split_over_devices(conditions, self.mesh, apart=True)


HERE = Devices(None, 1)  # where the model is, an image at once


def devices_for(total: int, batch_size: int, tensor: int = 1, *, shared: bool = True) -> Devices:
    """The devices for so many images; the log says how many there are.

    Args:
      total: images.
      batch_size: images at once on each device, at most.
      tensor: devices that share a model.
      shared: whether they are of all processes together, and go in batches of as even a size; or of
        this one, in batches of the given size.
    """
    rows = even_batch(batch_size, total, 1) if shared else batch_size
    here = jax.local_devices()
    if tensor > 1:
        if len(here) > tensor:
            log.warning("tensor=%d uses as many of the %d devices here", tensor, len(here))
        return Devices(None, rows)
    processes = jax.process_count() if shared else 1
    batches = -(-total // rows)
    count = min(len(here), -(-batches // processes))
    if (every := len(here) * processes) > 1:
        hint = "" if count == len(here) else f"; batch_size={max(1, total // every)} would use all"
        log.info(
            "%d images at once on each device, on %d of the %d here%s",
            *(rows, count, len(here), hint),
        )
    return Devices(each_device.side_by_side(here[:count]), rows)


def over_devices(model: Any, mesh: Mesh | None = None) -> Any:
    """A Generator or Tokenizer whose weights every device holds.

    Args:
      model: the same, elsewhere.
      mesh: of devices; None: all of this process.
    """
    copied = copy.copy(model)
    copied.network = each_device.placed(model.network, mesh or sharding.local_mesh())
    return copied


def split_over_devices(
    conditions: Conditions, mesh: Mesh | None = None, apart: bool = False
) -> Conditions:
    """The same conditions, split over devices.

    Args:
      conditions: of any labels.
      mesh: of devices; None: all of this process.
      apart: compute those of each device by themselves.
    """
    mesh = mesh or sharding.local_mesh()
    split = sharding.batch(mesh)

    def split_conditions(labels: np.ndarray) -> Any:
        shares = np.split(labels, mesh.size) if apart else [labels]
        with jax.set_mesh(sharding.first_device()):  # where encoders are
            computed = [conditions(share) for share in shares]
        if isinstance(computed[0], list):  # texts, which their model puts on devices
            return [text for texts in computed for text in texts]
        if len(computed) > 1:
            computed = [jax.tree.map(lambda *parts: np.concatenate(parts), *computed)]
        return jax.device_put(computed[0], split)

    return split_conditions

"""Too many skipped steps in a row, whose loss or gradients are not finite, stop the run."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from maskgil_jax.data.order import Order
from maskgil_jax.data.records.image_records import Named
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.checkpoints import Checkpoints
from maskgil_jax.training.train_state import TrainState

log = logging.getLogger("maskgil_jax")

NAMES_SHOWN = 8  # of a batch, in a message
LARGEST_WEIGHT = 10.0  # root mean square; it is below 1 in all networks that train well


class Skips:
    """Stops a run of which too many steps in a row were skipped, and says what they had read."""

    def __init__(
        self,
        name_of: Callable[[int], Named],
        order: Order,
        allowed: int,
        checkpoints: Checkpoints,
    ):
        """Begin to watch.

        Args:
          name_of: as in Dataset.
          order: of the examples.
          allowed: steps in a row that may be skipped.
          checkpoints: of the run, for advice on where to go on.
        """
        self._name_of, self._order, self._allowed = name_of, order, allowed
        self._checkpoints = checkpoints
        self._before: jax.Array | None = None

    def note(
        self, step: int, in_a_row: jax.Array, state: Callable[[], TrainState], *, last: bool
    ) -> None:
        """Check the step before this one, while this one runs; and the last one too.

        Args:
          step: that was begun.
          in_a_row: int32 [], skipped steps up to it.
          state: gives the one after it, for a run that ends here.
          last: whether no step follows.
        """
        if self._before is not None:
            self._check(step - 1, int(self._before), state)
        self._before = in_a_row
        if last:
            self._check(step, int(in_a_row), state)

    def _check(self, step: int, in_a_row: int, state: Callable[[], TrainState]) -> None:
        if in_a_row > self._allowed:
            raise InputError(self._complaint(step, state().model))
        if in_a_row:
            log.warning("skipped step %d: its loss or gradients are not finite", step)

    def _complaint(self, step: int, model: Any) -> str:
        count = self._allowed + 1
        lines = [
            f"the loss or gradients of {count} steps in a row are not finite, "
            f"config.skips_allowed = {self._allowed}. "
            + advice(
                float(weight_norm(model)),
                sum(leaf.size for leaf in jax.tree.leaves(model)),
                self._checkpoints.latest or 0,
                self._checkpoints.weight_norms,
            )
            + " They had read:"
        ]
        for skipped in range(step - count + 1, step + 1):
            indices = self._order.examples(skipped)
            names = [self._name_of(i).name for i in indices[:NAMES_SHOWN]]
            more = f", and {len(indices) - NAMES_SHOWN} more" if len(indices) > NAMES_SHOWN else ""
            lines.append(f"  step {skipped}: {', '.join(names)}{more}")
        return "\n".join(lines)


def advice(norm: float, weights: int, newest: int, norms: Mapping[int, float]) -> str:
    """What to do where training stopped on losses that are not finite.

    Args:
      norm: of the weights now.
      weights: their number.
      newest: step of the newest checkpoint, or 0.
      norms: of the weights of checkpoints by step, where known.
    """

    def sound(norm: float) -> bool:
        return norm <= LARGEST_WEIGHT * math.sqrt(weights)

    of_newest = f", whose weights have norm {norms[newest]:.3g}" if newest in norms else ""
    if sound(norm) and sound(norms.get(newest, 0.0)):
        return (
            f"The weights have norm {norm:.3g}; the newest checkpoint is of step {newest}"
            f"{of_newest} (a lower learning rate may help)."
        )
    diverged = (
        f"The weights have norm {norm:.3g}, a root mean square of {norm / math.sqrt(weights):.3g} "
        f"over {weights:,} of them (below 1 is usual): training diverged before. "
    )
    again = (
        "Start again in another work directory, with a smaller --config.optimizer.learning_rate."
    )
    if not newest:
        return f"{diverged}No checkpoint was saved. {again}"
    before = [step for step, of_step in norms.items() if sound(of_step)]
    diverged += f"The newest checkpoint is of step {newest}{of_newest}: "
    if newest not in before:
        diverged += "do not go on from it; "
    if before:
        last = before[-1]
        diverged += f"that of step {last} is sound, its weights have norm {norms[last]:.3g}"
    else:
        diverged += "none that is kept is from before (--config.keep_every=N keeps more)"
    return f"{diverged}. {again}"


@jax.jit
def weight_norm(model: Any) -> jax.Array:
    """The global norm of all weights, float32 []; finite wherever it and they are."""
    weights = [x for x in jax.tree.leaves(model) if jnp.issubdtype(x.dtype, jnp.inexact)]
    largest = jnp.stack([jnp.abs(x).max().astype(jnp.float32) for x in weights]).max()
    # Squares of 1e30 are infinite in float32, so those of the weights' shares are summed.
    shares = [(x.astype(jnp.float32) / largest) for x in weights]
    return jnp.where(largest == 0, 0.0, largest * optax.tree.norm(shares))

"""How many evaluations of the network images take: what quality is set against, beside seconds."""

from typing import Any

import jax
import numpy as np


class PassCount:
    """Passes of all that was drawn: one for each evaluation of the network, two if it is guided.

    It is called with the passes that each image of a batch needed, [B], as Generator.sample does.
    A batch runs until its last image is done, so that all of its images take the most of these.
    Token by token a pass is of one token.
    """

    def __init__(self) -> None:
        self.images = 0
        self._batches: list[Any] = []

    def __call__(self, passes_B: jax.Array | np.ndarray) -> None:
        """Add those of a batch, or of one part of how it is drawn."""
        self._batches.append(passes_B)

    def drawn(self, images: int) -> None:
        """Say that so many images were drawn in all of this way."""
        self.images += images

    @property
    def per_image(self) -> float:
        """Passes that were run, by images."""
        return self._over_images(lambda passes_B: len(passes_B) * passes_B.max())

    @property
    def needed_per_image(self) -> float:
        """Passes until each image by itself was done, by images."""
        return self._over_images(lambda passes_B: passes_B.sum())

    def _over_images(self, total: Any) -> float:
        return float(sum(total(np.asarray(batch)) for batch in self._batches)) / self.images

    def about(self) -> dict[str, float]:
        """What a file says of it."""
        return {
            "images": self.images,
            "passes_per_image": self.per_image,
            "passes_needed_per_image": self.needed_per_image,
        }

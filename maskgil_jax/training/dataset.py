"""What the loop needs to know of the data of a run."""

import dataclasses
from collections.abc import Callable, Sequence

from maskgil_jax.data import pipeline
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.data.order import Pool, examples_in
from maskgil_jax.data.records.image_records import Named


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The examples of a run, by index.

    Attributes:
      load: (index, rng) -> example (see data/pipeline.py).
      pools: examples of one source and one bucket (see data/order.py).
      grids: (height, width) in tokens of each bucket.
      name_of: index -> what messages call the example, and why it cannot be read, if so.
    """

    load: pipeline.Load
    pools: Sequence[Pool]
    grids: Sequence[Size]
    name_of: Callable[[int], Named]

    def __len__(self) -> int:
        return examples_in(self.pools)

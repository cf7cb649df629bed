"""Small orders of examples: of squares, of several shapes, and of a mixture."""

import numpy as np

from maskgil_jax.data.order import Order, pools_of


def order_of(buckets, weights=(1.0,), batch_size=4, seed=3):
    parts = pools_of([np.array(numbers) for numbers in buckets], weights)
    return Order(parts, batch_size, seed)


SQUARES = order_of([10 * [0]])
# A third in bucket 2, a few in bucket 7 (fewer than a batch), none in the others.
SHAPES = order_of([57 * [0] + 30 * [2] + 3 * [7]])
MIXED = order_of([20 * [0] + 10 * [1], 5 * [0] + 45 * [1]], weights=(3.0, 1.0))

"""Small images to be compared, and how they are."""

import numpy as np

from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation
from maskgil_jax.evaluation.evaluator import Settings

RNG = np.random.default_rng(0)
ORIGINALS = RNG.integers(256, size=(9, 16, 16, 3), dtype=np.uint8)
NOISY = np.clip(ORIGINALS + RNG.integers(-20, 20, size=ORIGINALS.shape), 0, 255).astype(np.uint8)
ORIGINALS[::2] //= 2
NOISY[::4] //= 3
DIGITS, _ = sources.center_crops(sources.open_source("embedded"), 8, 600)


def evaluate(samples, reference, tmp_path, *names, **settings):
    return evaluation.evaluate(
        str(samples), str(reference), Settings(names, batch_size=9, **settings), tmp_path / "work"
    )

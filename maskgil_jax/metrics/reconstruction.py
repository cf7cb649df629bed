"""How well a tokenizer gives images back, and how much of its codebook it uses."""

import numpy as np
import scipy.special


def psnr(originals: np.ndarray, reconstructions: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, data range 255, mean over images.

    Args:
      originals, reconstructions: uint8 [N, H, W, 3].
    """
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"originals {originals.shape} and reconstructions {reconstructions.shape} differ"
        )
    difference = originals.astype(np.float64) - reconstructions
    error = np.maximum((difference**2).mean(axis=(1, 2, 3)), 1e-10)
    return float((10 * np.log10(255**2 / error)).mean())


def codebook_usage(codes: np.ndarray, codebook_size: int) -> tuple[float, float]:
    """Share of the codes that occur at all, and exp of the entropy of their frequencies."""
    counts = np.bincount(np.ravel(codes), minlength=codebook_size)
    perplexity = np.exp(scipy.special.entr(counts / counts.sum()).sum())
    return float((counts > 0).mean()), float(perplexity)

"""How well a tokenizer reconstructs images, and how much of its codebook it uses."""

import numpy as np
import scipy.special

SSIM_WINDOW = 7  # pixels; skimage's default


def psnr(originals: np.ndarray, reconstructions: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, data range 255, mean over images.

    Args:
      originals, reconstructions: uint8 [N, H, W, 3].
    """
    return float(psnr_of_each(originals, reconstructions).mean())


def psnr_of_each(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """The PSNR of each image, float64 [N]; as `psnr`."""
    _check_alike(originals, reconstructions)
    difference = originals.astype(np.float64) - reconstructions
    error = np.maximum((difference**2).mean(axis=(1, 2, 3)), 1e-10)
    return 10 * np.log10(255**2 / error)


def ssim(originals: np.ndarray, reconstructions: np.ndarray, data_range: float = 255) -> float:
    """Structural similarity as skimage defines it (uniform 7x7 window), mean over images.

    Args:
      originals, reconstructions: uint8 [N, H, W, 3], sides of 7 or more.
      data_range: 255 is that of the images. LlamaGen's script gives 2 for images in [0, 1], which
        is 510 here and comes out higher (0.675 for VQ-16).
    """
    return float(ssim_of_each(originals, reconstructions, data_range).mean())


def ssim_of_each(
    originals: np.ndarray, reconstructions: np.ndarray, data_range: float = 255
) -> np.ndarray:
    """The SSIM of each image, float64 [N]; as `ssim`."""
    _check_alike(originals, reconstructions)
    if min(originals.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(
            f"images of {originals.shape[1]} x {originals.shape[2]} pixels, expected sides of "
            f"{SSIM_WINDOW} or more"
        )
    from skimage.metrics import structural_similarity  # slow to import, and rarely needed

    values = [
        structural_similarity(x, y, channel_axis=-1, data_range=data_range)
        for x, y in zip(originals, reconstructions, strict=True)
    ]
    return np.array(values)


def codebook_usage(codes: np.ndarray, codebook_size: int) -> tuple[float, float]:
    """Share of the codes that occur at all, and exp of the entropy of their frequencies."""
    counts = np.bincount(np.ravel(codes), minlength=codebook_size)
    perplexity = np.exp(scipy.special.entr(counts / counts.sum()).sum())
    return float((counts > 0).mean()), float(perplexity)


def summary(
    originals: np.ndarray, reconstructions: np.ndarray, codes: np.ndarray, codebook_size: int
) -> dict[str, float]:
    """All of the above by name; no ssim for images that are too small for its window."""
    values = {"psnr": psnr(originals, reconstructions)}
    if min(originals.shape[1:3]) >= SSIM_WINDOW:
        values["ssim"] = ssim(originals, reconstructions)
    usage, perplexity = codebook_usage(codes, codebook_size)
    return values | {"codebook_usage": usage, "codebook_perplexity": perplexity}


def _check_alike(originals: np.ndarray, reconstructions: np.ndarray) -> None:
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"originals {originals.shape} and reconstructions {reconstructions.shape} differ"
        )

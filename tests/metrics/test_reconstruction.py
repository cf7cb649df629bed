import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from maskgil_jax import metrics
from maskgil_jax.data.images import pixel_levels

RNG = np.random.default_rng(0)
ORIGINALS = RNG.integers(256, size=(3, 16, 20, 3), dtype=np.uint8)
NOISE = RNG.integers(-20, 20, size=ORIGINALS.shape)
NOISY = np.clip(ORIGINALS + NOISE, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("data_range", [255, 510])
def test_ssim_is_its_formula(data_range):
    """Wang et al. 2004, equation 13, over uniform 7x7 windows with sample covariances."""
    x, y = (a.astype(np.float64) for a in (ORIGINALS, NOISY))

    def mean(a):
        return uniform_filter(a, (0, 7, 7, 0))[:, 3:-3, 3:-3]

    unbiased = 49 / 48
    variances = [unbiased * (mean(a * a) - mean(a) ** 2) for a in (x, y)]
    covariance = unbiased * (mean(x * y) - mean(x) * mean(y))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    numerator = (2 * mean(x) * mean(y) + c1) * (2 * covariance + c2)
    denominator = (mean(x) ** 2 + mean(y) ** 2 + c1) * (sum(variances) + c2)
    expected = (numerator / denominator).mean()
    np.testing.assert_allclose(metrics.ssim(ORIGINALS, NOISY, data_range), expected, rtol=1e-9)


def test_psnr_is_a_mean_over_images():
    changed = ORIGINALS.copy()
    changed[0, 0, 0, 0] ^= 1
    error = 1 / ORIGINALS[0].size
    expected = (10 * np.log10(255**2 / error) + 2 * 10 * np.log10(255**2 / 1e-10)) / 3
    np.testing.assert_allclose(metrics.psnr(ORIGINALS, changed), expected)


def test_the_codebook_is_used_evenly_or_not():
    usage, perplexity = metrics.codebook_usage(np.arange(8).reshape(2, 2, 2), 16)
    assert usage == 0.5 and np.isclose(perplexity, 8)


def test_roundings_differ_by_half_a_level():
    levels = np.array([-1.2, -1, 0.5 / 127.5 - 1, 0.49 / 127.5 - 1, 0.0, 1, 1.2], np.float32)
    assert pixel_levels.to_uint8(levels).tolist() == [0, 0, 1, 0, 128, 255, 255]
    assert pixel_levels.to_uint8(levels, "truncate").tolist() == [0, 0, 0, 0, 127, 255, 255]


def test_psnr_of_a_known_error():
    original = np.full((2, 4, 4, 3), 100, np.uint8)
    shifted = original + np.uint8(5)
    np.testing.assert_allclose(metrics.psnr(original, shifted), 20 * np.log10(255 / 5))


def test_codebook_usage_and_perplexity():
    usage, perplexity = metrics.codebook_usage(np.array([[0, 1], [1, 0]]), 8)
    assert usage == 0.25
    np.testing.assert_allclose(perplexity, 2.0)

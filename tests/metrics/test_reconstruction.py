import jax
import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from maskgil_jax import api, metrics
from maskgil_jax.data import images
from maskgil_jax.errors import InputError
from maskgil_jax.metrics import compare
from maskgil_jax.models.inception import Inception, InceptionConfig
from maskgil_jax.tokenizers.lpips import LPIPS, LPIPSConfig

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
    assert images.to_uint8(levels).tolist() == [0, 0, 1, 0, 128, 255, 255]
    assert images.to_uint8(levels, "truncate").tolist() == [0, 0, 0, 0, 127, 255, 255]


def test_evaluate_gives_lpips_of_the_network_it_is_given(tmp_path):
    config = LPIPSConfig(channels=(4, 4, 4, 4, 4))
    network = jax.jit(lambda: LPIPS(config, jax.random.key(0)))()
    api.Auxiliary(network).save(tmp_path / "lpips")
    for name, array in (("a", ORIGINALS[:, :16, :16]), ("b", NOISY[:, :16, :16])):
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    paths = [str(tmp_path / f"{name}.npz") for name in "ab"]
    found = compare.compare(*paths, ["lpips"], str(tmp_path / "lpips"))
    x, y = (a[:, :16, :16] / np.float32(127.5) - 1 for a in (NOISY, ORIGINALS))
    expected = jax.jit(lambda n, x, y: n(x, y))(network, x, y).mean()
    np.testing.assert_allclose(found["metrics"]["lpips_vgg"], expected, rtol=1e-5)
    assert found["real_to_real"] == {}
    with pytest.raises(InputError, match="metric 'lpips' needs --lpips=DIR"):
        compare.compare(*paths, ["lpips"])
    with pytest.raises(InputError, match="metric 'codebook': the samples have no codes"):
        compare.compare(*paths, ["codebook"])


def random_weights(like):
    gain = 1.4 / np.sqrt(np.prod(like.shape[:-1]))
    noise = RNG.standard_normal(like.shape, np.float32)
    return gain.astype(np.float32) * noise if len(like.shape) > 1 else 1 + 0.1 * abs(noise)


def test_inception_metrics_are_those_of_its_features(tmp_path):
    like = jax.eval_shape(lambda: Inception(InceptionConfig(), jax.random.key(0)))
    network = jax.tree.map(random_weights, like)
    api.Auxiliary(network).save(tmp_path / "inception")
    noisy, originals = NOISY[:, :16, :16].repeat(3, 0), ORIGINALS[:, :16, :16].repeat(3, 0)
    originals[::2] //= 2
    noisy[::4] //= 3
    for name, array in (("a", noisy), ("b", originals)):
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    paths = [str(tmp_path / f"{name}.npz") for name in "ab"]
    names, directory = ["fid", "rfid", "sfid", "is", "pr", "frechet"], str(tmp_path / "inception")
    result = compare.compare(*paths, names, inception=directory)
    extract = jax.jit(lambda n, x: n(x))
    drawn, real = extract(network, noisy), extract(network, originals)
    precision, recall = metrics.precision_recall(real.pool, drawn.pool)
    expected = {
        "fid": metrics.frechet_distance(real.pool, drawn.pool),
        "rfid": metrics.frechet_distance(real.pool, drawn.pool),
        "sfid": metrics.frechet_distance(real.spatial, drawn.spatial),
        "inception_score": metrics.inception_score(drawn.logits)[0],
        "precision": precision,
        "recall": recall,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(result["metrics"][name], value, rtol=1e-4, err_msg=name)
    assert result["features"] == [compare.INCEPTION, compare.PIXELS]
    assert "pixel_frechet_distance" in result["metrics"]
    assert "rfid" not in result["real_to_real"] and "fid" in result["real_to_real"]
    with pytest.raises(InputError, match="metric 'fid' needs --inception=DIR"):
        compare.compare(*paths, ["fid"])


def test_psnr_of_a_known_error():
    original = np.full((2, 4, 4, 3), 100, np.uint8)
    shifted = original + np.uint8(5)
    np.testing.assert_allclose(metrics.psnr(original, shifted), 20 * np.log10(255 / 5))


def test_codebook_usage_and_perplexity():
    usage, perplexity = metrics.codebook_usage(np.array([[0, 1], [1, 0]]), 8)
    assert usage == 0.25
    np.testing.assert_allclose(perplexity, 2.0)

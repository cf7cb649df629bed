"""Whole measurements: what is compared with what, under which name, and what they leave out."""

import json
import logging

import jax
import numpy as np
import pytest
from PIL import Image

from maskgil_jax import metrics
from maskgil_jax.evaluation import feature_networks, image_sets
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from tests.helpers.image_pairs import DIGITS, NOISY, ORIGINALS, evaluate


def test_lpips_is_that_of_the_network_it_is_given(pair, tmp_path):
    config = LPIPSConfig(channels=(4, 4, 4, 4, 4))
    network = jax.jit(lambda: LPIPS(config, jax.random.key(0)))()
    loading.Auxiliary(network).save(tmp_path / "lpips")
    measured = evaluate(*pair, tmp_path, "lpips", lpips=str(tmp_path / "lpips"))
    x, y = (a / np.float32(127.5) - 1 for a in (NOISY, ORIGINALS))
    expected = jax.jit(lambda n, x, y: n(x, y))(network, x, y).mean()
    np.testing.assert_allclose(measured["metrics"]["lpips_vgg"], expected, rtol=1e-5)
    assert measured["real_to_real"] == {}
    with pytest.raises(InputError, match="metric 'lpips' needs lpips=DIR"):
        evaluate(*pair, tmp_path, "lpips")
    with pytest.raises(InputError, match="metric .codebook. of .*: the samples have no codes"):
        evaluate(*pair, tmp_path, "codebook")


@pytest.mark.slow
def test_inception_metrics_are_those_of_its_features(inception, pair, tmp_path):
    network, directory = inception
    names = ("fid", "rfid", "sfid", "is", "pr", "dc", "kid", "frechet")
    result = evaluate(*pair, tmp_path, *names, inception=directory)
    extract = jax.jit(lambda n, x: n(x))
    generated, real = extract(network, NOISY), extract(network, ORIGINALS)
    precision, recall = metrics.precision_recall(real.pool, generated.pool)
    density, coverage = metrics.density_coverage(real.pool, generated.pool)
    order = np.random.default_rng(0).permutation(len(NOISY))
    expected = {
        "fid": metrics.frechet_distance(real.pool, generated.pool),
        "rfid": metrics.frechet_distance(real.pool, generated.pool),
        "sfid": metrics.frechet_distance(real.spatial, generated.spatial),
        "inception_score": metrics.inception_score(np.asarray(generated.logits)[order])[0],
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(result["metrics"][name], value, rtol=1e-4, err_msg=name)
    assert result["features"] == [
        "Inception 2015-12-05, TensorFlow 1's bilinear resize to 299",
        feature_networks.PIXELS,
    ]
    assert "pixel_frechet_distance" in result["metrics"]
    assert "rfid" not in result["real_to_real"] and "fid" in result["real_to_real"]
    assert any(
        "no dc between halves of the reference: 4" in warning for warning in result["warnings"]
    )
    assert any(
        "fid of 9 images: a covariance of 2,048" in warning for warning in result["warnings"]
    )
    with pytest.raises(InputError, match="metric 'fid' needs inception=DIR"):
        evaluate(*pair, tmp_path, "fid")


def test_images_of_another_size_are_refused_before_any_work(pair, tmp_path):
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="holds images of 32 x 32 pixels, but the samples are 16"):
        evaluate(pair[0], tmp_path / "large.npz", tmp_path)
    assert not (tmp_path / "work").exists()


def test_classes_are_compared_by_name(tmp_path):
    for i, name in enumerate(("ant", "bee", "cat")):
        for folder in ("all", "few") if name != "ant" else ("all",):
            (tmp_path / folder / name).mkdir(parents=True)
            for j in range(8):
                shade = (90 * i + j, 0, 0)
                Image.new("RGB", (8, 8), shade).save(tmp_path / folder / name / f"{j}.png")
    whole, few = tmp_path / "all", tmp_path / "few"
    measured = evaluate(few, whole, tmp_path, "accuracy")
    assert measured["metrics"]["pixel_class_accuracy"] == 1.0
    with pytest.raises(InputError, match="the reference has no images of classes .'ant'."):
        evaluate(whole, few, tmp_path, "accuracy")


def test_what_was_cut_short_goes_on(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", arr_0=DIGITS[:560])
    np.savez(tmp_path / "b.npz", arr_0=DIGITS[40:])
    expected = evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "whole")
    computed = []
    compute = feature_networks.features.pixel_features

    def cut(images):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(images))
        return compute(images)

    monkeypatch.setattr(feature_networks.features, "pixel_features", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path)
    assert computed == [256, 256]
    computed.append("again")
    measured = evaluate(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path)
    assert computed == [256, 256, "again", 48, 256, 256, 48]  # the reference, then the samples
    assert measured["metrics"] == expected["metrics"]
    assert measured["samples"]["pixels_sha256"] == expected["samples"]["pixels_sha256"]


def test_an_npz_is_never_held_whole(tmp_path):
    import tracemalloc

    images = np.zeros((2000, 64, 64, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(2000) % 256
    np.savez(tmp_path / "stored.npz", arr_0=images)
    np.savez_compressed(tmp_path / "packed.npz", arr_0=images)
    for name in ("stored", "packed"):
        tracemalloc.start()
        read = image_sets.Npz(str(tmp_path / f"{name}.npz"))
        for start in range(0, 2000, image_sets.BLOCK):
            piece = read.read(start, min(start + image_sets.BLOCK, 2000)).images
            assert (piece[:, 0, 0, 0] == images[start : start + image_sets.BLOCK, 0, 0, 0]).all()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < images.nbytes / 2, name


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(DIGITS[i]).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "images" / "a" / "3.png").write_bytes(b"no image")
    measured = evaluate(tmp_path / "images", tmp_path / "images", tmp_path, "accuracy", "pr")
    assert measured["samples"]["count"] == 11
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "b" / "5.png")
    with pytest.raises(InputError, match="5.png is 9 x 9 pixels, but the images of"):
        evaluate(tmp_path / "images", tmp_path / "images", tmp_path / "again")


def test_results_name_what_they_are_of(pair, tmp_path):
    measured = evaluate(*pair, tmp_path, "frechet")
    assert json.loads(json.dumps(measured)) == measured
    assert measured["samples"]["count"] == 9 and measured["reference"]["path"] == str(pair[1])
    assert measured["code"].startswith("0.1.0") and measured["protocol"]["name"] == "none"
    assert measured["reference"]["sha256"] != measured["samples"]["sha256"]
    with pytest.raises(InputError, match="protocol=fid50k: expected one of adm, torch-fidelity"):
        evaluate(*pair, tmp_path, protocol="fid50k")


def test_a_measured_folder_says_what_is_not_used_of_it(tmp_path, caplog):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "b.npy").write_bytes(b"")
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        image_sets.open_images(str(tmp_path))
    assert "not used: 1 (suffix .npy): b.npy" in caplog.text

"""How near images are to their captions: of files, of folders, and of a generator of text."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import maskgil_jax
from maskgil_jax import metrics
from maskgil_jax.evaluation import evaluation
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.interop import conversion
from maskgil_jax.runtime.errors import InputError
from tests.helpers import commands, tiny_clip, tiny_text

CAPTIONS = ["a red cat", "one cat", "a red cat", "one", "a cat red one cat", "3 cats", "", "red"]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(8, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def official():
    return tiny_clip.official()


@pytest.fixture(scope="module")
def clip(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    source = tiny_clip.snapshot(folder / "snapshot", official)
    conversion.import_model("clip", str(source), str(folder / "clip"), {})
    return str(folder / "clip")


@pytest.fixture(scope="module")
def of_text(built_once):
    return built_once("of_text", tiny_text.save)


def expected_score(model, images, captions):
    """As torchmetrics computes it, of each image."""
    prepared = tiny_clip.processor()(images=list(images), return_tensors="pt")
    ids = tiny_clip.tokenizer()(list(captions), padding=True, truncation=True, max_length=20)
    with torch.no_grad():
        image = model.get_image_features(prepared["pixel_values"]).pooler_output
        given = torch.tensor(ids["input_ids"]), torch.tensor(ids["attention_mask"])
        text = model.get_text_features(*given).pooler_output
    cosines = torch.nn.functional.cosine_similarity(image, text).numpy()
    return np.maximum(100 * cosines, 0)


def evaluate(samples, clip, tmp_path, *names, reference="", **settings):
    settings = Settings(names or ("clip",), clip=clip, batch_size=3, **settings)
    return evaluation.evaluate(str(samples), reference, settings, tmp_path / "work")


def written(tmp_path, **arrays):
    path = tmp_path / "samples.npz"
    np.savez(path, **dict(arr_0=IMAGES, captions=np.array(CAPTIONS)) | arrays)
    return path


def test_the_score_is_that_of_torchmetrics(official, clip, tmp_path):
    result = evaluate(written(tmp_path), clip, tmp_path)
    each = expected_score(official, IMAGES, CAPTIONS)
    assert each.min() < each.max()  # so that a wrong pairing would show
    assert result["metrics"] == {"clip_score": pytest.approx(each.mean(), abs=1e-3)}
    assert result["reference"] == "none" and result["real_to_real"] == {}
    assert "max(100 cos, 0)" in result["protocol"]["clip"]
    (network,) = result["features"]
    assert maskgil_jax.load(clip).fingerprint in network
    moved = evaluate(written(tmp_path, captions=np.roll(CAPTIONS, 1)), clip, tmp_path)
    assert moved["metrics"] != result["metrics"]  # nor are scores of other captions kept


def test_the_protocol_of_coco_has_words_before_captions_and_its_own_crop(official, clip, tmp_path):
    (tmp_path / "val").mkdir()
    listed = [{"id": i, "file_name": f"{i}.png"} for i in range(8)]
    for i, image in enumerate(IMAGES):
        Image.fromarray(np.pad(image, ((0, 0), (i, 9), (0, 0)))).save(tmp_path / f"val/{i}.png")
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": listed, "annotations": []}))
    reference = f"coco:{path},{tmp_path}/val"
    names, settings = ("clip", "frechet"), dict(reference=reference, protocol="coco-30k")
    result = evaluate(written(tmp_path), clip, tmp_path, *names, **settings)
    each = expected_score(official, IMAGES, [f"A photo depicts {c}" for c in CAPTIONS])
    assert result["metrics"]["clip_score"] == pytest.approx(each.mean(), abs=1e-3)
    assert "'A photo depicts ' before each caption" in result["protocol"]["clip"]
    assert result["reference"]["protocol"] == "centre crop and Lanczos resize to 40"
    assert any("the published numbers of coco-30k are of 30,000" in w for w in result["warnings"])


def test_negative_cosines_count_as_0():
    images = np.array([[1.0, 0], [0, 2], [3, 4]])
    captions = np.array([[-2.0, 0], [0, 5], [4, 3]])
    assert metrics.clip_score(images, captions) == pytest.approx((0 + 100 + 96) / 3)
    with pytest.raises(ValueError, match="expected two arrays"):
        metrics.clip_score(images, captions[:2])


def test_captions_beside_images_of_a_folder_count_and_other_metrics_go_along(
    official, clip, tmp_path
):
    (tmp_path / "images").mkdir()
    captions = [caption or "a" for caption in CAPTIONS]
    for i, (image, caption) in enumerate(zip(IMAGES, captions, strict=True)):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "images" / f"{i}.txt").write_text(f"{caption}\nsomething else\n")
    np.savez(tmp_path / "reference.npz", arr_0=IMAGES[::-1])  # which has no captions
    names, reference = ("clip", "frechet"), str(tmp_path / "reference.npz")
    result = evaluate(tmp_path / "images", clip, tmp_path, *names, reference=reference)
    expected = expected_score(official, IMAGES, captions).mean()
    assert result["metrics"]["clip_score"] == pytest.approx(expected, abs=1e-3)
    assert result["metrics"]["pixel_frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert [*result["real_to_real"]] == ["pixel_frechet_distance"]
    (tmp_path / "images" / "5.txt").unlink()
    with pytest.raises(InputError, match="5.png: it has no caption: expected a caption of every"):
        evaluate(tmp_path / "images", clip, tmp_path)


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(captions=np.array(CAPTIONS[:3])), "captions is <U9 .3,., expected texts .8."),
        (dict(captions=np.arange(8)), "captions is int64 .8,., expected texts"),
    ],
)
def test_captions_of_other_images_are_refused(arrays, message, clip, tmp_path):
    with pytest.raises(InputError, match=message):
        evaluate(written(tmp_path, **arrays), clip, tmp_path)


def test_images_without_captions_and_metrics_without_a_reference_are_refused(clip, tmp_path):
    np.savez(tmp_path / "none.npz", arr_0=IMAGES)
    with pytest.raises(InputError, match="none.npz has none: expected images of prompts, an npz"):
        evaluate(tmp_path / "none.npz", clip, tmp_path)
    with pytest.raises(InputError, match="metric 'clip' needs clip=DIR"):
        evaluate(written(tmp_path), "", tmp_path)
    done = commands.call(
        "evaluate", f"--samples={tmp_path}/none.npz", "--metrics=frechet", f"--output={tmp_path}/x"
    )
    assert "--reference: expected what the samples are compared with" in done.stderr


@pytest.mark.slow(seconds=16)
def test_what_prompts_draw_is_measured_as_it_is_drawn_and_from_its_files(of_text, clip, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red cat\none\na red cat\n")  # one of them twice
    drawing = [f"--model={of_text}/model", f"--prompts={tmp_path}/prompts.txt", "--steps=2"]
    measuring = ["--metrics=clip", f"--clip={clip}"]
    done = commands.call("sample", *drawing, "--num=1", f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    for name, samples in (
        ("files", [f"--samples={tmp_path}/out"]),
        ("drawn", [*drawing, "--num=3"]),
    ):
        done = commands.call("evaluate", *samples, *measuring, f"--output={tmp_path}/{name}")
        assert done.returncode == 0, done.stderr
    files, drawn = (json.loads((tmp_path / name).read_text()) for name in ("files", "drawn"))
    assert files["metrics"]["clip_score"] == pytest.approx(drawn["metrics"]["clip_score"], abs=0.1)
    assert files["samples"]["count"] == drawn["samples"]["count"] == 3

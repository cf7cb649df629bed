"""Against transformers, which stands for the official code."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

import maskgil_jax
from maskgil_jax.interop import conversion
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_clip

ODD = [
    "a red cat, one cat",
    "",
    "   A\tCAT\n\nre-reads  3 1/2 books… ",
    "naïve 日本語 🦊 e\u0301",
    "it's they'll <|endoftext|> behind it",
    "&amp; <br/> re" + " cat" * 40,
]


@pytest.fixture(scope="module")
def model():
    return tiny_clip.official()


@pytest.fixture(scope="module")
def snapshot(model, tmp_path_factory):
    return tiny_clip.snapshot(tmp_path_factory.mktemp("clip") / "snapshot", model)


def copy_of(snapshot, folder):
    folder.mkdir()
    for path in snapshot.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def imported(source, folder, **arguments):
    conversion.import_model("clip", str(source), str(folder), arguments)
    return maskgil_jax.load_clip(folder)


@pytest.fixture(scope="module")
def encoder(snapshot, tmp_path_factory):
    return imported(snapshot, tmp_path_factory.mktemp("clip") / "model")


def expected_texts(model, captions):
    ids = tiny_clip.tokenizer()(captions, padding=True, truncation=True, max_length=20)
    with torch.no_grad():
        given = torch.tensor(ids["input_ids"]), torch.tensor(ids["attention_mask"])
        return model.get_text_features(*given).pooler_output.numpy()


def expected_images(model, images):
    prepared = tiny_clip.processor()(images=list(images), return_tensors="pt")
    with torch.no_grad():
        return model.get_image_features(prepared["pixel_values"]).pooler_output.numpy()


def pixels(*shape):
    """Smooth pictures, on which a filter or a cut of another place would be seen."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (shape[0], 7, 9, 3), np.uint8)
    sizes = shape[2], shape[1]
    return np.stack(
        [np.asarray(Image.fromarray(x).resize(sizes, Image.Resampling.BICUBIC)) for x in small]
    )


def test_tokens_of_odd_texts_are_those_of_transformers(encoder):
    ids = tiny_clip.tokenizer()(ODD, truncation=True, max_length=20)["input_ids"]
    end = encoder.network.config.text_end
    for row, expected in zip(encoder.tokenize(ODD), ids, strict=True):
        assert row.tolist() == [*expected, *[end] * (20 - len(expected))]


@pytest.mark.parametrize("size", [(32, 32), (45, 71), (71, 33), (20, 26)], ids=str)
def test_images_are_prepared_as_those_of_transformers(encoder, size):
    images = pixels(2, *size)
    config = encoder.network.config
    found = encoder.cropped(images) / np.float32(255)
    found = (found - np.float32(config.mean)) / np.float32(config.deviation)
    expected = tiny_clip.processor()(images=list(images), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected, atol=1e-5)


def test_embeddings_are_those_of_transformers(encoder, model):
    images = pixels(3, 40, 60)
    found = encoder.image_embeddings(images)
    np.testing.assert_allclose(found, expected_images(model, images), rtol=1e-4, atol=1e-4)
    texts = encoder.text_embeddings(ODD)
    assert found.shape == (3, encoder.width) and texts.shape == (len(ODD), encoder.width)
    np.testing.assert_allclose(texts, expected_texts(model, ODD), rtol=1e-4, atol=1e-4)


def test_other_activations_and_the_end_of_text_as_older_files_say_it(tmp_path):
    model = tiny_clip.official(hidden_act="gelu", end=2)
    encoder = imported(tiny_clip.snapshot(tmp_path / "s", model), tmp_path / "m")
    assert encoder.network.config.activation == "gelu"
    np.testing.assert_allclose(
        encoder.text_embeddings(ODD), expected_texts(model, ODD), rtol=1e-4, atol=1e-4
    )


def test_older_snapshots_give_the_same(snapshot, encoder, tmp_path):
    """Weights in a file of PyTorch, the tokenizer in two files, and settings of texts twice."""
    folder = copy_of(snapshot, tmp_path / "s")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    state = {name: torch.tensor(x) for name, x in tensors.items()}
    state["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    tiny_clip.old_pieces(folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config_dict"] = settings["text_config"]
    settings["text_config"] = dict(settings["text_config"], num_attention_heads=1)
    (folder / "config.json").write_text(json.dumps(settings))
    again = imported(folder, tmp_path / "m")
    assert again.network.config == encoder.network.config
    np.testing.assert_array_equal(again.tokenize(ODD), encoder.tokenize(ODD))
    np.testing.assert_array_equal(again.text_embeddings(ODD), encoder.text_embeddings(ODD))


def test_export_gives_the_tensors_back_and_is_imported_again(snapshot, encoder, tmp_path):
    encoder.save(tmp_path / "m")
    output = tmp_path / "out.safetensors"
    conversion.export_model("clip", str(tmp_path / "m"), str(output))
    tensors = safetensors.numpy.load_file(snapshot / "model.safetensors")
    written = safetensors.numpy.load_file(output)
    assert written.keys() == tensors.keys()
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, tensors[name], strict=True)
    again = imported(f"{output},{snapshot / 'tokenizer.json'}", tmp_path / "again")
    assert again.network.config == encoder.network.config
    assert again.fingerprint == encoder.fingerprint


@pytest.mark.slow(seconds=35)
def test_a_network_of_the_true_shape_of_b_32(tmp_path):
    import transformers

    torch.manual_seed(0)
    text = dict(vocab_size=1000, bos_token_id=998, eos_token_id=999)  # of 49,408: the rest the same
    config = transformers.CLIPConfig(text_config=text, projection_dim=512)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "s")
    words = {f"w{i}": i for i in range(998)} | {tiny_clip.START: 998, tiny_clip.END: 999}
    transformers.CLIPTokenizer(words, []).save_pretrained(tmp_path / "s")
    encoder = imported(tmp_path / "s", tmp_path / "m")
    config = encoder.network.config
    assert (config.image_size, config.patch_size, config.image_heads) == (224, 32, 12)
    assert (config.text_heads, config.text_positions, config.width) == (8, 77, 512)
    images = pixels(2, 224, 224)
    prepared = tiny_clip.processor(224)(images=list(images), return_tensors="pt")
    ids = encoder.tokenize(["", ""])
    ids[1, 1:50] = np.random.default_rng(0).integers(0, 998, 49)
    with torch.no_grad():
        expected = model.get_image_features(prepared["pixel_values"]).pooler_output.numpy()
        of_texts = model.get_text_features(torch.tensor(ids)).pooler_output.numpy()
    np.testing.assert_allclose(encoder.image_embeddings(images), expected, atol=2e-4)
    np.testing.assert_allclose(encoder.network.text_embeddings(ids), of_texts, atol=2e-4)


def _without(name):
    return lambda folder: (folder / name).unlink()


def _changed(name, **values):
    def change(folder):
        content = json.loads((folder / name).read_text())
        for key, value in values.items():
            (content[key].update if isinstance(content.get(key), dict) else None)
            content[key] = content[key] | value if isinstance(value, dict) else value
        (folder / name).write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (_without("config.json"), "but no config.json: expected a snapshot"),
        (_without("tokenizer.json"), "but no tokenizer.json \\(or vocab.json and merges.txt\\)"),
        (_without("model.safetensors"), "has no file of tensors"),
        (_changed("config.json", model_type="siglip"), "model_type 'siglip', expected 'clip'"),
        (
            _changed("config.json", vision_config={"num_hidden_layers": 4}),
            "image_layers = 3, but its settings say 4",
        ),
        (
            _changed("config.json", text_config={"hidden_act": "relu"}),
            "'relu' for texts and 'quick_gelu' for images",
        ),
        (
            _changed("config.json", text_config={"num_attention_heads": "4"}),
            "text_config: field 'num_attention_heads' is a text",
        ),
        (_changed("config.json", text_config={"eos_token_id": 3}), "the end 3 and ids up to"),
        (_changed("preprocessor_config.json", resample=2), "'resample': 2"),
        (_changed("preprocessor_config.json", do_center_crop=False), "'do_center_crop': False"),
        (_changed("preprocessor_config.json", size={"shortest_edge": 40}), "'shortest_edge': 40"),
        (_changed("preprocessor_config.json", image_mean=[0.5]), "image_mean.*expected 3 numbers"),
    ],
)
def test_what_is_no_whole_snapshot_is_refused(change, message, snapshot, tmp_path):
    folder = copy_of(snapshot, tmp_path / "s")
    change(folder)
    with pytest.raises(InputError, match=message):
        imported(folder, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_captions_that_are_none_are_refused(encoder):
    with pytest.raises(InputError, match="captions are one string 'a cat', expected a list"):
        encoder.tokenize("a cat")
    with pytest.raises(InputError, match="holds U\\+D800, which is half a character"):
        encoder.tokenize(["a \ud800"])
    with pytest.raises(InputError, match="images are float32 .*expected uint8"):
        encoder.image_embeddings(np.zeros((1, 4, 4, 3), np.float32))

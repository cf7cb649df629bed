"""Images of a few words of Python: what a pipeline draws, redraws and refuses."""

import inspect
import typing

import numpy as np
import pytest
from PIL import Image

import maskgil_jax
from maskgil_jax.data.images.pixel_levels import to_uint8
from maskgil_jax.generation.decoding_arguments import DecodingArguments
from maskgil_jax.generation.options import Decoding
from maskgil_jax.generation.pipelines import Pipeline
from maskgil_jax.pretrained.generators import make_generator
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_gemma, tiny_llama, tiny_models

FAST = dict(steps=2, guidance=1.0)
NAMES = ("cat", "dog", "red fox", "tench")


@pytest.fixture(scope="module")
def pipe():
    """Of 4 classes, and images of 4 x 6 pixels."""
    generator = make_generator(tiny_models.masked().network, class_names=NAMES)
    return Pipeline(generator, tiny_models.tokenizer())


def picture(height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pixels(images):
    return np.stack([np.asarray(image) for image in images])


def test_images_of_classes_are_what_the_generator_and_the_tokenizer_give(pipe):
    images = pipe(classes=["tench", 1], num=2, seed=5, **FAST)
    assert all(isinstance(image, Image.Image) and image.size == (6, 4) for image in images)
    codes = pipe.generator.sample([3, 3, 1, 1], 5, **FAST)
    np.testing.assert_array_equal(pixels(images), to_uint8(pipe.tokenizer.decode(codes)))
    same = pipe(["tench", "dog"], num=2, seed=5, batch_size=3, **FAST)
    np.testing.assert_array_equal(pixels(same), pixels(images))


def test_a_size_is_of_width_and_height(pipe):
    assert pipe("cat", size=(8, 4), **FAST)[0].size == (8, 4)
    with pytest.raises(InputError, match="size=7x4, expected multiples of 2"):
        pipe("cat", size=(7, 4))


def test_features_of_files_and_no_condition(tmp_path):
    network = tiny_llama.masked(
        num_classes=0, feature_dim=8, condition_tokens=3, codebook_size=16
    ).network
    table = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", table)
    pipe = Pipeline(make_generator(network), tiny_models.tokenizer())
    expected = pipe.generator.sample(table[None], 0, **FAST)
    [image] = pipe(features=tmp_path / "a.npy", **FAST)
    np.testing.assert_array_equal(image, to_uint8(pipe.tokenizer.decode(expected))[0])
    nothing = tiny_llama.masked(num_classes=0, codebook_size=16)
    images = Pipeline(nothing, tiny_models.tokenizer())(num=2, steps=2)
    assert len(images) == 2 and (np.asarray(images[0]) != np.asarray(images[1])).any()


@pytest.mark.parametrize("as_given", [Image.fromarray, np.asarray])
def test_an_edit_keeps_what_is_outside_the_mask(pipe, as_given):
    before, mask = picture(), np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 255
    edited = pixels(pipe.edit(as_given(before), as_given(mask), "dog", num=2, **FAST))
    np.testing.assert_array_equal(edited[:, :, :3], np.stack([before] * 2)[:, :, :3])
    assert (edited[0] != edited[1]).any()
    # The token at columns 2 and 3 has a pixel of the mask: it is drawn anew, as by hand.
    codes = np.array(pipe.tokenizer.encode(before[None].astype(np.float32) / 127.5 - 1))
    codes[:, :, 1:] = pipe.generator.mask_id
    codes = pipe.generator.sample([1, 1], 0, codes=codes.repeat(2, axis=0), **FAST)
    expected = to_uint8(pipe.tokenizer.decode(codes))
    whole = pixels(pipe.edit(before, mask == 255, 1, num=2, keep="none", **FAST))
    np.testing.assert_array_equal(whole, expected)


def test_a_full_mask_is_a_new_image_and_an_empty_one_the_old(pipe, caplog):
    full = pipe.edit(picture(), (0, 0, 6, 4), "dog", seed=5, **FAST)
    np.testing.assert_array_equal(pixels(full), pixels(pipe("dog", seed=5, **FAST)))
    same = pipe.edit(picture(), np.zeros((4, 6), bool), "dog", num=2, **FAST)
    np.testing.assert_array_equal(pixels(same), np.stack([picture()] * 2))
    assert "the mask is empty, and nothing is redrawn" in caplog.text


def test_outpainting_keeps_the_image_on_its_canvas(pipe):
    [image] = pipe.edit(picture(), None, "cat", canvas=(9, 5), place=(2, 1), **FAST)
    assert image.size == (9, 5)
    np.testing.assert_array_equal(np.asarray(image)[1:5, 2:8], picture())


def test_a_large_photo_stays_as_large(pipe):
    before = picture(70, 90)
    [image] = pipe.edit(before, (10, 20, 30, 40), "cat", **FAST)
    after, changed = np.asarray(image), np.zeros((70, 90), bool)
    changed[20:40, 10:30] = True
    np.testing.assert_array_equal(after[~changed], before[~changed])
    assert (after[changed] != before[changed]).mean() > 0.5


def test_a_transparent_image_is_edited_on_white(pipe):
    clear = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    [image] = pipe.edit(clear, (0, 0, 2, 2), "cat", **FAST)
    assert (np.asarray(image)[2:] == 255).all()


BAD = {
    "size": (dict(mask=np.zeros((4, 5), bool)), "mask of 5 x 4 pixels for image of 6 x 4"),
    "nothing": (dict(mask=None), "one of mask, box and canvas is expected"),
    "box": (
        dict(mask=(0, 0, 7, 2)),
        "box=0,0,7,2, expected LEFT,TOP,RIGHT,BOTTOM in an image of 6",
    ),
    "place": (dict(place=(1, 1)), "place=1,1, expected LEFT,TOP of the image on a canvas"),
    "mask": (dict(mask=np.zeros((4, 6))), "mask is float64 .4, 6., expected bool or uint8"),
    "image": (dict(image=np.zeros((4, 6))), "image is float64 .4, 6., expected uint8 .H, W, 3."),
    "file": (dict(image="/no.png"), "image=/no.png: "),
    "keep": (dict(keep="all"), "keep='all', expected one of mask, tokens, none"),
    "class": (dict(condition="dgo"), "classes: class 'dgo' is none of the 4 names .* 'dog'"),
    "no class": (dict(condition=None), "one of condition .* is expected, none given"),
    "two": (dict(classes=1), "condition and classes given"),
    "num": (dict(num=0), "num=0, expected 1 or more"),
    "method": (dict(method="hybrid"), "method=hybrid: a part of an image is redrawn by method=mas"),
    "option": (dict(prefix=3), "prefix=3 is not an option of method=masked"),
    "guidance": (dict(guidance_form="x"), "guidance_form = 'x', expected one of"),
    "prompt": (dict(negative_prompt="x"), "negative_prompt=x goes with prompts"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_of_an_edit_is_one_message(case, pipe):
    changes, message = BAD[case]
    given = dict(image=picture(), mask=(0, 0, 2, 2), condition="dog") | changes
    with pytest.raises(InputError, match=message):
        pipe.edit(**given)


def test_models_of_other_codes_are_refused(pipe):
    other = tiny_llama.masked()
    with pytest.raises(InputError, match="tokenizer has 16 codes, but the generator has 20"):
        Pipeline(other, pipe.tokenizer)


def test_a_causal_model_edits_nothing():
    causal = Pipeline(tiny_models.causal(), tiny_models.tokenizer())
    with pytest.raises(InputError, match="is causal, and cannot redraw a part of an image"):
        causal.edit(picture(), (0, 0, 2, 2), 1)


def test_decoding_options_are_completed_and_checked():
    names = [*Decoding.__dataclass_fields__]
    kinds = typing.get_type_hints(Decoding)
    assert typing.get_type_hints(DecodingArguments) == kinds
    for function in (Pipeline.__call__, Pipeline.edit):
        assert [*inspect.signature(function).parameters][-len(names) :] == names


def test_a_directory_is_all_that_is_needed(pipe, tmp_path):
    pipe.tokenizer.save(tmp_path / "t")
    tokenizer = maskgil_jax.load_tokenizer(tmp_path / "t")
    known = make_generator(pipe.generator.network, tokenizer.provenance, NAMES)
    known.save(tmp_path / "g")
    loaded = maskgil_jax.pipeline(tmp_path / "g")
    expected = pipe("red fox", seed=1, **FAST)
    np.testing.assert_array_equal(pixels(loaded("red fox", seed=1, **FAST)), pixels(expected))
    assert "4 classes" in repr(loaded) and "2 x 2 pixels" in repr(loaded)


def test_prompts_are_encoded_by_the_encoder_that_the_model_names(tmp_path):
    encoder = tiny_gemma.encoder()
    encoder.save(tmp_path / "e")
    encoder = maskgil_jax.load_text_encoder(tmp_path / "e")
    network = tiny_llama.masked(
        num_classes=0, feature_dim=encoder.width, condition_tokens=4, codebook_size=16
    ).network
    generator = make_generator(network, encoder=encoder.provenance)
    pipe = Pipeline(generator, tiny_models.tokenizer())
    images = pipe("a red apple", num=2, seed=3, **FAST)
    codes = generator.sample(encoder.features(["a red apple"] * 2, 4), 3, **FAST)
    np.testing.assert_array_equal(pixels(images), to_uint8(pipe.tokenizer.decode(codes)))
    assert len(pipe.edit(images[0], (0, 0, 2, 2), "a pear", negative_prompt="red", **FAST)) == 1
    with pytest.raises(InputError, match="prompt 3, expected a text"):
        pipe(3)

import builtins
import json

import numpy as np
import pytest
import sentencepiece

import maskgil_jax
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.runtime.errors import InputError
from tests.helpers.tiny_gemma import CAPTIONS, encoder, network, vocabulary

ODD = ["", "   ", "naïve 日本語 🦊", "\ttab  and   runs ", "two\n\nlines", "<bos> is text"]


def test_tokens_say_the_captions_after_a_beginning():
    pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary())
    tokens = encoder().tokenize(CAPTIONS + ODD, 100)
    assert tokens.ids_BT.dtype == np.int32 and tokens.mask_BT.dtype == bool
    for ids_T, mask_T, caption in zip(*tokens, CAPTIONS + ODD, strict=True):
        assert not mask_T[: -mask_T.sum()].any()  # padding comes first
        first, *rest = ids_T[mask_T].tolist()
        assert first == pieces.bos_id() and pieces.decode(rest) == caption


def test_long_captions_lose_their_end():
    whole, cut = (encoder().tokenize(CAPTIONS, tokens) for tokens in (100, 3))
    assert cut.mask_BT.all()
    for row, (ids_T, mask_T) in enumerate(zip(*whole, strict=True)):
        np.testing.assert_array_equal(cut.ids_BT[row], ids_T[mask_T][:3])


def test_features_do_not_depend_on_the_other_captions_nor_on_room():
    model = encoder()
    features_BTC, mask_BT = model.features(CAPTIONS + ODD, 70)
    assert features_BTC.shape == (10, 70, model.width) and features_BTC.dtype == np.float32
    for row, caption in enumerate(CAPTIONS + ODD):
        alone, _ = model.features([caption], 60)
        np.testing.assert_allclose(features_BTC[row, 10:], alone[0], atol=1e-4)
    assert not np.asarray(features_BTC)[~np.asarray(mask_BT)].any()


def test_a_saved_encoder_is_the_same(tmp_path):
    model = encoder()
    model.save(tmp_path / "model")
    loaded = maskgil_jax.load(tmp_path / "model")
    assert isinstance(loaded, maskgil_jax.TextEncoder) and loaded.kind == "text_encoder"
    same = dict(fingerprint=model.fingerprint, width=32, layer=-2)
    assert loaded.provenance == dict(path=str(tmp_path / "model"), **same)
    for a, b in zip(model.features(CAPTIONS, 9), loaded.features(CAPTIONS, 9), strict=True):
        np.testing.assert_array_equal(a, b)
    low = maskgil_jax.load(tmp_path / "model", dtype="bfloat16")
    assert low.features(CAPTIONS, 9).features_BTC.dtype == "bfloat16"
    assert low.fingerprint == model.fingerprint


def test_the_fingerprint_names_weights_and_vocabulary():
    other = vocabulary().replace(b"<eos>", b"<end>")
    prints = [
        encoder().fingerprint,
        encoder(layers=4).fingerprint,
        TextEncoder(network(), other).fingerprint,
    ]
    assert other != vocabulary() and len(set(prints)) == 3


def test_a_directory_without_its_vocabulary_is_refused(tmp_path):
    encoder().save(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="is not whole: it has no tokenizer.model"):
        maskgil_jax.load(tmp_path / "model")


@pytest.mark.parametrize(
    "captions, tokens, message",
    [
        ("one string", 8, "captions are one string 'one string', expected a list"),
        (["a"], 0, "tokens = 0, expected 1 or more"),
        (["a", "so cute \ud83d"], 8, r"holds U\+D83D, which is half a character"),
    ],
)
def test_what_is_not_captions_is_refused(captions, tokens, message):
    with pytest.raises(InputError, match=message):
        encoder().features(captions, tokens)


def test_a_vocabulary_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="not a sentencepiece model"):
        TextEncoder(network(), b"something else")
    with pytest.raises(InputError, match="expected at most 40"):
        TextEncoder(network(vocab_size=40), vocabulary())


def test_without_sentencepiece_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "sentencepiece":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'maskgil_jax\[text\]'"):
        encoder()


def test_model_json_says_what_it_is(tmp_path):
    encoder().save(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert (description["kind"], description["class"]) == ("text_encoder", "gemma")

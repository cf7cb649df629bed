"""Reconstructions go on where they stopped, and files of two runs never lie side by side."""

import json
import logging

import jax
import numpy as np
import pytest

from maskgil_jax.generation import reconstructions
from maskgil_jax.generation.placing import Devices
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime import unfinished
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import tokenizer_comparison
from maskgil_jax.workflows.options import ReconstructOptions
from tests.helpers import tiny_models

ORIGINALS = np.random.default_rng(0).integers(256, size=(7, 8, 8, 3), dtype=np.uint8)


def parts(directory, **changes):
    given = dict(originals=ORIGINALS, devices=Devices(None, 3), rounding="half_up") | changes
    return reconstructions.Reconstructions(tiny_models.tokenizer(), directory=directory, **given)


def computed(some, title="vq"):
    some.compute(title)
    return some.read()


def stopping_after(batches, monkeypatch):
    """Ctrl-C after so many batches, of all tokenizers together."""
    done, compute = [], reconstructions.Reconstructions._batch

    def batch(self, *arguments):
        if len(done) == batches:
            raise KeyboardInterrupt
        done.append(compute(self, *arguments))
        return done[-1]

    monkeypatch.setattr(reconstructions.Reconstructions, "_batch", batch)
    return done


def test_one_that_was_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch, caplog):
    whole, codes = computed(parts(tmp_path / "whole"))
    assert whole.shape == ORIGINALS.shape and codes.shape == (7, 4, 4)
    with monkeypatch.context() as patched:
        stopping_after(2, patched)
        with pytest.raises(KeyboardInterrupt):
            parts(tmp_path / "stopped").compute("vq")
    rest = stopping_after(9, monkeypatch)
    again = parts(tmp_path / "stopped")
    caplog.set_level(logging.INFO, "maskgil_jax")
    for found, expected in zip(computed(again), (whole, codes), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert "vq: 2 of 3 batches are there" in caplog.text
    assert len(rest) == 1 and again.cost()["encode_seconds"] > 0


@pytest.mark.parametrize(
    "changes",
    [dict(originals=ORIGINALS[::-1]), dict(rounding="truncate"), dict(devices=Devices(None, 4))],
)
def test_parts_of_other_images_or_settings_are_others(changes, tmp_path):
    assert parts(tmp_path)._directory == parts(tmp_path)._directory
    assert parts(tmp_path, **changes)._directory != parts(tmp_path)._directory


def test_a_damaged_part_is_named(tmp_path):
    some = parts(tmp_path)
    some.compute("vq")
    path = next(tmp_path.glob("*/000003.npz"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="000003.npz is not an npz that is whole.*Remove it"):
        computed(parts(tmp_path))


def test_pixels_that_are_not_finite_are_said(tmp_path):
    broken = jax.tree.map(lambda x: x * np.nan, tiny_models.tokenizer().network)
    made = reconstructions.Reconstructions(
        Tokenizer(broken), ORIGINALS, "half_up", tmp_path, Devices(None, 7)
    )
    with pytest.raises(InputError, match="tokenizer vq gives pixels that are not finite"):
        made.compute("vq")


def compare(output, *names, count=7):
    tokenizer_comparison.compare(
        ReconstructOptions(
            tokenizers=tuple(str(output.parent / name) for name in names),
            data="embedded:test",
            output=str(output),
            image_size=8,
            count=count,
            batch_size=3,
            processes=Processes(),
        )
    )


@pytest.mark.slow
def test_a_comparison_is_whole_or_marked_and_removes_an_earlier_one(tmp_path, monkeypatch):
    for name in ("a", "b"):
        tiny_models.tokenizer().save(tmp_path / name)
    output = tmp_path / "out"
    with monkeypatch.context() as patched:
        stopping_after(1, patched)
        with pytest.raises(KeyboardInterrupt):
            compare(output, "a", "b", count=70)
    with pytest.raises(InputError, match="out is unfinished"):
        unfinished.check(output)
    with monkeypatch.context() as patched:
        rest = stopping_after(9, patched)
        compare(output, "a", "b", count=70)
    # Eight devices take 3 images each; a and b have the same weights, and so reconstructions.
    assert len(rest) == 2
    unfinished.check(output)
    names = {path.name for path in output.iterdir()}
    assert names == set(tokenizer_comparison.files_of(["a", "b"]))
    (output / "mine.npz").write_text("mine")
    compare(output, "a", count=5)
    assert {path.name for path in output.iterdir()} == {
        *tokenizer_comparison.files_of(["a"]),
        "mine.npz",
    }
    rows = json.loads((output / "tokenizers.json").read_text())["tokenizers"]
    assert [row["tokenizer"] for row in rows] == ["a"]

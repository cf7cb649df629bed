"""Lumina-DiMOO through the public path: snapshot, import, load; and back."""

import jax
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.interop import conversion
from tests.helpers import golden, tiny_dimoo


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    made = {}

    def one(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            source = tiny_dimoo.of_golden(name, folder / "snapshot")
            conversion.import_model("lumina-dimoo", str(source), str(folder / "model"), {})
            made[name] = folder / "model"
        return made[name]

    return one


def test_logits_are_the_official_ones(imported):
    name = "lumina_dimoo"
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    assert model.kind == "masked" and model.codebook_size == 8192 and model.grid == (64, 64)
    with jax.default_matmul_precision("highest"):
        for which in "abu":
            logits = np.asarray(model.token_logits(expected[f"ids_{which}"][None]))[0]
            found = {
                f"logits_{which}": logits[:, expected["columns"]],
                f"lse_{which}": np.log(np.exp(logits.astype(np.float64)).sum(axis=1)),
                f"lse_codes_{which}": np.log(np.exp(logits[:, 126356:], dtype=float).sum(axis=1)),
            }
            for output, value in found.items():
                golden.check(name, output, value, expected[output])
            sure = expected[f"argmax_codes_{which}_top2gap"] > 5e-4
            best = logits[:, 126356:].argmax(axis=1)
            np.testing.assert_array_equal(best[sure], expected[f"argmax_codes_{which}"][sure])
            labels = expected.get(f"labels_{which}")
            if labels is not None:
                places = np.flatnonzero(labels >= 0)
                losses = found[f"lse_{which}"][places] - logits[places, labels[places]]
                golden.check(name, f"loss_{which}", losses.mean(), expected[f"loss_{which}"][0])


@pytest.mark.parametrize("run", ["r0"])
def test_greedy_draws_are_the_official_ones(run, imported):
    name = "lumina_dimoo_sampling"
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    spec = golden.spec(name)["runs"][run]
    with jax.default_matmul_precision("highest"):
        codes = model.sample(
            [expected[f"{run}_prompt"]],
            0,
            negative=[expected[f"{run}_uncond"]],
            grid=tuple(spec["grid"]),
            guidance=spec["cfg"],
            steps=spec["steps"],
            temperature=spec["temperature"],
        )
    np.testing.assert_array_equal(codes[0], expected[f"{run}_codes"])

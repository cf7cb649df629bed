"""Lumina-mGPT through the public path: snapshot, import, load; and back."""

import jax
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.interop import conversion
from tests.helpers import golden, tiny_lumina


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    made = {}

    def one(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            source = tiny_lumina.of_golden(name, folder / "snapshot")
            conversion.import_model("lumina-mgpt", str(source), str(folder / "model"), {})
            made[name] = folder / "model"
        return made[name]

    return one


@pytest.mark.parametrize("name", ["lumina_mgpt", "lumina_mgpt_34b"])
def test_logits_are_the_official_ones(name, imported):
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    assert model.kind == "causal" and model.codebook_size == 8192 and model.grid == (32, 32)
    with jax.default_matmul_precision("highest"):
        for which in "abu":
            logits = np.asarray(model.token_logits(expected[f"ids_{which}"][None]))[0]
            golden.check(
                name,
                f"logits_{which}",
                logits[:, expected["columns"]],
                expected[f"logits_{which}"],
            )
            lse = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
            golden.check(name, f"lse_{which}", lse, expected[f"lse_{which}"])


@pytest.mark.parametrize("run", ["p0", "p1"])
def test_greedy_draws_are_the_official_ones(run, imported):
    name = "lumina_mgpt_sampling"
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    spec = golden.spec(name)["runs"][run]
    grid = (spec["height"] // 16, spec["width"] // 16)
    prompt = [expected[f"{run}_prompt"]]
    with jax.default_matmul_precision("highest"):
        codes = model.sample(prompt, 0, grid=grid, guidance=spec["cfg"], temperature=0.0)
        np.testing.assert_array_equal(codes[0], expected[f"{run}_codes"])
        plain = model.sample(prompt, 0, grid=grid, guidance=1.0, temperature=0.0)
    tokens = expected[f"{run}_tokens_cfg1"]
    np.testing.assert_array_equal(
        np.asarray(plain).ravel() + 4, tokens[(tokens >= 4) & (tokens < 8196)]
    )

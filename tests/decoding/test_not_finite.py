"""Logits that are not finite draw no code, and say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.decoding import token_sampling
from maskgil_jax.generation import images
from maskgil_jax.pretrained import generators
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_models


def with_weight(model, value, part):
    """The network with one weight of the first leaf whose name holds `part` replaced."""

    def changed(path, leaf):
        if part not in jax.tree_util.keystr(path) or done:
            return leaf
        done.append(path)
        return leaf.reshape(-1).at[0].set(value).reshape(leaf.shape)

    done = []
    network = jax.tree_util.tree_map_with_path(changed, model.network)
    assert done
    return network


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize(
    "made, options", [(tiny_models.masked, dict(steps=2)), (tiny_models.causal, {})]
)
def test_a_broken_weight_is_said_instead_of_drawing_code_0(made, options, value):
    broken = generators.make_generator(with_weight(made(), value, "norm"), path="RUNS/broken")
    message = r"RUNS/broken: the logits of 3 of 3 images \(4, 5, 6\) are not finite from step 1 on"
    with pytest.raises(InputError, match=message):
        broken.sample([0, 1, 2], 0, start=4, **options)


def test_the_images_and_the_step_are_named():
    codes = np.array([[[3, 1]], [[-3, -2]], [[0, 5]], [[2, -3]]])
    with pytest.raises(InputError) as raised:
        token_sampling.check_drawn(codes, 10, "DIR", {"guidance": 1e37})
    assert "2 of 4 images (11, 13) are not finite from step 2 on" in str(raised.value)
    assert "guidance=1e+37" in str(raised.value)
    token_sampling.check_drawn(codes[[0, 2]], 10, "DIR", {})


def test_one_image_of_a_batch_spoils_no_other():
    logits = jnp.ones((3, 2, 8)).at[1, 0, 3].set(jnp.nan)
    codes, _, _ = token_sampling.code(jnp.full((3, 2, 1), 0.4), logits, (8,))
    assert (np.asarray(codes) < 0).tolist() == [[False, False], [True, False], [False, False]]


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_filters_leave_out_is_no_fault_but_the_logits_own(bad):
    logits = jnp.linspace(0, 1, 8)[None]
    uniform = jnp.full((1, 1), 0.9)
    codes, _, _ = token_sampling.code(
        uniform, logits, (8,), top_k=2, top_p=0.5
    )  # -inf for the others
    assert 6 <= int(codes[0]) < 8
    codes, _, _ = token_sampling.code(uniform, logits.at[0, 1].set(bad), (8,), top_k=2)
    assert int(codes[0]) == token_sampling.NOT_DRAWN
    # Of several digits of a code too.
    codes, _, _ = token_sampling.code(jnp.full((1, 2), 0.9), logits.at[0, 6].set(bad), (4, 4))
    assert int(codes[0]) == token_sampling.NOT_DRAWN


def test_guidance_that_overflows_in_the_network_is_said():
    # Untrained heads are 0; these logits are in the thousands.
    sure = generators.make_generator(
        jax.tree.map(lambda x: 1000 * x + 1, tiny_models.masked().network)
    )
    assert int(sure.sample([0, 1], 0, steps=2).min()) >= 0
    with pytest.raises(InputError, match=r"from step 2 on.*guidance=3e\+38.* overflow float32"):
        sure.sample([0, 1], 0, steps=2, guidance=3e38)
    with pytest.raises(InputError, match=r"temperature=1e-37.* overflow float32"):
        sure.sample([0, 1], 0, steps=2, temperature=1e-37)


def test_a_tokenizer_that_is_not_finite_is_named():
    broken = Tokenizer(with_weight(tiny_models.tokenizer(), np.nan, "decoder"), "RUNS/vq")
    with pytest.raises(InputError, match="RUNS/vq gives pixels that are not finite"):
        broken.decode(np.zeros((1, 2, 2), int))
    with pytest.raises(InputError, match="RUNS/vq gives pixels that are not finite"):
        images.reconstruct(broken, np.zeros((2, 4, 4, 3), np.uint8), batch_size=2)
    broken = Tokenizer(with_weight(tiny_models.tokenizer(), np.nan, "encoder"), "RUNS/vq")
    with pytest.raises(InputError, match="RUNS/vq gives latents that are not finite"):
        broken.encode(np.zeros((1, 4, 4, 3), np.float32))


def test_a_loaded_model_is_called_by_its_directory(tmp_path):
    network = with_weight(tiny_models.masked(), np.nan, "norm")
    generators.make_generator(network).save(tmp_path / "broken")
    with pytest.raises(InputError, match=f"{tmp_path}/broken: the logits of 1 of 1 images"):
        maskgil_jax.load(tmp_path / "broken").sample([0], 0, steps=2)

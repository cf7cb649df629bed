"""Training one network on both tasks, against a reference that is written out here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models import rope
from maskgil_jax.pretrained import presets
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_loss, generator_step, objectives
from tests.helpers import tiny
from tests.helpers.tiny_llama import built

SMOOTHING = 0.1


def norm(x, scale):
    return x / jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * scale


def layer_norm(x, norm):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    return x * norm.scale[...] + norm.bias[...]


def rotated(x_THK, angles_TJ):
    """Neighbouring channels turned by the angles; the condition's row is zero."""
    cos, sin = jnp.cos(angles_TJ)[:, None], jnp.sin(angles_TJ)[:, None]
    a, b = x_THK[1:, :, ::2], x_THK[1:, :, 1::2]
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x_THK[1:].shape)
    return jnp.concatenate([0 * x_THK[:1], turned])


def reference_logits(network, tokens_L, label, split):
    """Of the tokens in order, of one image: the paper's network with the mask written as loops."""
    config, blocks = network.config, network.blocks
    angles_LJ = rope.rope_2d(*config.grid, config.head_dim)[network.order(*config.grid)]
    x_TD = jnp.concatenate(
        [network.class_embedding[...][label][None], network.code_embedding[...][tokens_L]]
    )
    T = len(x_TD)
    sees_TT = np.zeros((T, T), bool)
    for query in range(T):
        for key in range(T):
            behind = split == 0 or query > split  # place 0 is the condition
            sees_TT[query, key] = behind or key <= query
    for i in range(config.layers):
        y_TD = norm(x_TD, blocks.attention_norm.scale[i])
        q, k, v = jnp.einsum("TD,DCHK->CTHK", y_TD, blocks.qkv[i])
        norms = (jax.tree.map(lambda x, i=i: x[i], n) for n in (blocks.query_norm, blocks.key_norm))
        q, k = (rotated(layer_norm(x, n), angles_LJ) for x, n in zip((q, k), norms, strict=True))
        scores_HTT = jnp.einsum("SHK,THK->HST", q, k) / np.sqrt(config.head_dim)
        weights = jax.nn.softmax(jnp.where(sees_TT, scores_HTT, -1e30), axis=-1)
        y_TD = jnp.einsum("HST,THK,HKD->SD", weights, v, blocks.out[i])
        x_TD = x_TD + norm(y_TD, blocks.attention_post_norm.scale[i])
        gate, up = jnp.einsum(
            "TD,DCF->CTF", norm(x_TD, blocks.mlp_norm.scale[i]), blocks.gate_up[i]
        )
        y_TD = (jax.nn.silu(gate) * up) @ blocks.down[i]
        x_TD = x_TD + norm(y_TD, blocks.mlp_post_norm.scale[i])
    predicting = [place - 1 if place <= split else place for place in range(1, T)]
    return norm(x_TD[jnp.array(predicting)], network.norm.scale[...]) @ network.head[...]


def reference_loss(network, codes_BL, hidden_BL, labels, splits):
    """The mean over all predicted tokens, one image and one token at a time."""
    total, count = 0.0, 0
    for codes_L, hidden_L, label, split in zip(codes_BL, hidden_BL, labels, splits, strict=True):
        tokens_L = np.where(hidden_L, network.config.mask_id, codes_L)
        logits_LV = reference_logits(network, jnp.asarray(tokens_L), label, split)
        log_p_LV = jax.nn.log_softmax(logits_LV)
        for place, code in enumerate(codes_L):
            if place < split or hidden_L[place]:
                log_p_V = log_p_LV[place]
                total -= (1 - SMOOTHING) * log_p_V[code] + SMOOTHING * log_p_V.mean()
                count += 1
    return total / count


@pytest.mark.parametrize("order", [pytest.param("raster", marks=pytest.mark.slow), "halton"])
def test_loss_and_gradients_are_those_of_the_reference(order):
    network = built(causal_prefix=True, order=order)
    rng = np.random.default_rng(0)
    codes_BL, labels, splits = rng.integers(0, 20, (4, 12)), [0, 5, 2, 3], [5, 12, 0, 1]
    hidden_BL = rng.random((4, 12)) < 0.6
    for hidden_L, split in zip(hidden_BL, splits, strict=True):
        hidden_L[:split] = False
    predicted_BL = hidden_BL | (np.arange(12) < np.array(splits)[:, None])
    in_raster = np.argsort(network.order(3, 4))
    examples = {
        "codes": jnp.asarray(codes_BL[:, in_raster]).reshape(4, 3, 4),
        "masked": jnp.asarray(predicted_BL[:, in_raster]).reshape(4, 3, 4),
        "condition": jnp.array(labels),
        "prefix": jnp.array(splits),
    }
    examples["weight"] = examples["masked"] / predicted_BL.sum()

    def ours(network):
        loss = generator_loss.weighted_loss
        return loss(network, examples, None, label_smoothing=SMOOTHING, chunk=5)[0]

    found, gradients = jax.jit(jax.value_and_grad(ours))(network)
    expected, expected_gradients = jax.jit(
        jax.value_and_grad(lambda n: reference_loss(n, codes_BL, hidden_BL, labels, splits))
    )(network)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True)
    for gradient, wanted in pairs:
        np.testing.assert_allclose(gradient, wanted, rtol=2e-3, atol=2e-5)


def test_splits_follow_share_and_distribution():
    draw = lambda share, split: np.asarray(  # noqa: E731
        objectives.random_splits(jax.random.key(0), (20_000, 16), share, split)
    )
    uniform, whole = draw(0.5, "uniform"), draw(0.25, "all")
    np.testing.assert_allclose((uniform > 0).mean(), 0.5, atol=0.02)
    counts = np.bincount(uniform, minlength=17)[1:] / (uniform > 0).sum()
    np.testing.assert_allclose(counts, 1 / 16, atol=0.01)
    np.testing.assert_allclose((whole == 16).mean(), 0.25, atol=0.02)
    assert set(whole) == {0, 16}
    assert not draw(0.0, "uniform").any() and draw(1.0, "uniform").all()


def config_of(**loss):
    config = tiny.generator()
    config.loss.update(loss)
    return config


def examples_of(**loss):
    config = config_of(**loss)
    network = presets.network_config(config.model, 64, (4, 4), config.loss)
    state = generator_step.init(config, network, None)
    codes = jnp.array(np.random.default_rng(0).integers(0, 64, (8, 4, 4)))
    keys = jax.random.key(0), jax.random.key(1)
    examples = generator_step.examples_of(state.model, codes, jnp.arange(8), *keys, config.loss)
    return examples, state, config


def test_all_predicted_tokens_weigh_the_same_and_masks_are_those_of_the_masked_model():
    alone, _, _ = examples_of()
    both, _, _ = examples_of(autoregressive_share=0.5)
    prefix_B = np.asarray(both["prefix"])
    assert "prefix" not in alone and (prefix_B == 0).any() and (prefix_B > 0).any()
    predicted_BL = np.asarray(both["masked"]).reshape(8, 16)
    behind_BL = np.arange(16) >= prefix_B[:, None]
    assert predicted_BL[~behind_BL].all()
    masked_BL = np.asarray(alone["masked"]).reshape(8, 16)
    np.testing.assert_array_equal(predicted_BL[behind_BL], masked_BL[behind_BL])
    weight_BL = np.asarray(both["weight"]).reshape(8, 16)
    np.testing.assert_allclose(weight_BL, predicted_BL / predicted_BL.sum(), rtol=1e-6)


def test_one_compiled_step_trains_both_tasks_and_tells_how_much_of_each():
    _, state, config = examples_of(autoregressive_share=0.5)
    batch = {"codes": jnp.zeros((8, 4, 4), jnp.int32), "label": jnp.arange(8)}
    step = jax.jit(lambda s, b: generator_step.step(s, generator_step.Frozen(), b, config))
    lengths = []
    for _ in range(3):
        state, metrics = step(state, batch)
        lengths.append(float(metrics["prefix_tokens"]))
    assert step._cache_size() == 1 and len(set(lengths)) == 3 and 0 < np.mean(lengths) < 12
    assert int(state.step) == 3 and dataclasses.is_dataclass(state)


@pytest.mark.parametrize("preset", ["maskgit", "besnier", "halton"])
def test_a_network_that_cannot_learn_both_is_refused(preset):
    config = config_of(autoregressive_share=0.5)
    config.model.preset = preset
    with pytest.raises(InputError, match=f"autoregressive_share = 0.5 is of a masked.*{preset}"):
        presets.network_config(config.model, 64, (4, 4), config.loss)

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import objectives, optimizer


def test_cross_entropy_is_smoothed_over_all_classes():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 7))
    targets = jnp.array([[0, 6, 3], [1, 1, 2]])
    labels = optax.smooth_labels(jax.nn.one_hot(targets, 7), 0.1)
    expected = optax.softmax_cross_entropy(logits, labels)
    losses, correct = objectives.cross_entropy(logits, targets, 0.1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(correct, logits.argmax(axis=-1) == targets)


def test_a_head_that_is_still_zero_predicts_nothing():
    assert not objectives.cross_entropy(jnp.zeros((1, 1, 7)), jnp.array([[0]]), 0.0)[1].any()


@pytest.mark.parametrize("schedule", objectives.MASK_RATIOS)
def test_masks_follow_the_schedule(schedule):
    masks = objectives.random_masks(jax.random.key(0), (20000, 16), schedule)
    u = (np.arange(100000) + 0.5) / 100000
    expected = np.asarray(objectives.MASK_RATIOS[schedule](u))
    assert expected.min() >= 0 and expected.max() <= 1
    np.testing.assert_allclose(masks.mean(), expected.mean(), atol=0.01)
    # A ratio for each image, not one for all: the share of hidden tokens varies as it should.
    np.testing.assert_allclose(
        masks.mean(axis=1).var(),
        expected.var() + (expected * (1 - expected)).mean() / 16,
        atol=0.01,
    )


def test_the_arccos_schedule_hides_two_over_pi():
    u = (np.arange(100000) + 0.5) / 100000
    np.testing.assert_allclose(objectives.MASK_RATIOS["arccos"](u).mean(), 2 / np.pi, atol=1e-3)


def test_hinge_loss_is_zero_only_beyond_the_margins():
    hinge = objectives.DISCRIMINATOR_LOSSES["hinge"]
    assert hinge(jnp.array([[1.5]]), jnp.array([[-1.5]])) == 0
    assert hinge(jnp.array([[0.0]]), jnp.array([[0.0]])) == 1


@pytest.mark.parametrize("name", objectives.GENERATOR_LOSSES)
def test_what_fools_the_discriminator_costs_less(name):
    fooled, caught = (objectives.GENERATOR_LOSSES[name](jnp.full((2, 9), x)) for x in (3.0, -3.0))
    assert fooled < caught


@pytest.mark.parametrize("name", objectives.DISCRIMINATOR_LOSSES)
def test_a_discriminator_that_is_right_about_real_images_loses_less(name):
    fake = jnp.zeros((2, 9))
    loss = objectives.DISCRIMINATOR_LOSSES[name]
    assert loss(jnp.full((2, 9), 0.9), fake) < loss(jnp.full((2, 9), -0.9), fake)


def test_the_non_saturating_loss_sees_an_image_by_its_mean_logit():
    """Open-MAGVIT2's: softplus of minus the mean over the patches of an image."""
    logits = jnp.array([[-4.0, 6.0], [1.0, 2.0]])
    expected = np.log1p(np.exp(-np.array([1.0, 1.5]))).mean()
    np.testing.assert_allclose(objectives.GENERATOR_LOSSES["non_saturating"](logits), expected)


def test_lecam_is_zero_for_equal_means_only():
    real, fake = jnp.array([[1.0, 3.0]]), jnp.array([[-2.0]])
    # max(0, 1 - 0.5)^2 and max(0, 3 - 0.5)^2; max(0, 1.5 + 2)^2
    expected = (0.25 + 6.25) / 2 + 3.5**2
    np.testing.assert_allclose(objectives.lecam(real, fake, 1.5, 0.5), expected)
    assert objectives.lecam(jnp.ones((1, 2)), jnp.ones((1, 2)), 1.0, 1.0) == 0


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms_within_its_bounds():
    one = jnp.array([3.0, 4.0])
    np.testing.assert_allclose(objectives.adaptive_weight(one, 2 * one), 0.5, rtol=1e-4)
    np.testing.assert_allclose(objectives.adaptive_weight(one, 0 * one), 1e4)


def settings(**changes):
    return (
        dict(
            algorithm="adamw",
            learning_rate=0.1,
            beta1=0.9,
            beta2=0.96,
            weight_decay=0.0,
            clip_norm=0.0,
            warmup_steps=0,
            schedule="constant",
            milestones=(),
            steps=100,
        )
        | changes
    )


def test_warm_up_and_cosine():
    _, rate = optimizer.make(**settings(warmup_steps=10, schedule="cosine"))
    np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0, 0.05, 0.1], atol=1e-6)
    assert rate(55) < 0.06 and rate(100) < 1e-6


def test_milestones_divide_the_rate_by_ten_each():
    _, rate = optimizer.make(**settings(warmup_steps=10, milestones=(50, 80)))
    found = [rate(step) for step in (5, 10, 49, 50, 79, 80, 99)]
    np.testing.assert_allclose(found, [0.05, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)
    with pytest.raises(InputError, match="milestones = .* need schedule = constant"):
        optimizer.make(**settings(schedule="cosine", milestones=(50,)))


def test_weight_decay_is_decoupled_and_on_every_parameter():
    adam, _ = optimizer.make(**settings(weight_decay=0.5))
    params = {"scale": jnp.ones(3), "kernel": jnp.ones((2, 2))}
    updates, _ = adam.update(jax.tree.map(jnp.zeros_like, params), adam.init(params), params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.05)


def test_accumulation_sums_over_all_examples():
    batch = jnp.arange(12.0).reshape(12, 1)

    def micro(part, index):
        return {"sum": part.sum()}, part

    total, parts = optimizer.accumulate(micro, batch, 4)
    assert total["sum"] == batch.sum() and parts.shape == (4, 3, 1)
    assert sorted(parts.ravel().tolist()) == batch.ravel().tolist()


def head_loss(chunk):
    def loss(x_BLD, head_VD, codes_BL):
        def fn(head_VD, x_BnD, codes_Bn):
            logits = jnp.einsum("BnD,VD->BnV", x_BnD, head_VD)
            losses, correct = objectives.cross_entropy(logits, codes_Bn, 0.1)
            return losses.sum(), correct.sum()

        loss, correct = objectives.summed_in_chunks(fn, chunk, head_VD, x_BLD, codes_BL)
        return loss / codes_BL.size, correct

    return loss


def whole_loss(x_BLD, head_VD, codes_BL):
    losses, correct = objectives.cross_entropy(x_BLD @ head_VD.T, codes_BL, 0.1)
    return losses.mean(), correct.sum()


def with_gradients(loss):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_change_no_loss_and_no_gradient(chunk):
    keys = jax.random.split(jax.random.key(0), 3)
    x, head = jax.random.normal(keys[0], (2, 12, 8)), jax.random.normal(keys[1], (20, 8))
    codes = jax.random.randint(keys[2], (2, 12), 0, 20)
    whole = with_gradients(whole_loss)(x, head, codes)
    for found in (
        with_gradients(head_loss(chunk))(x, head, codes),
        (head_loss(chunk)(x, head, codes), whole[1]),
    ):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)


def test_over_devices_the_gradient_of_the_head_is_exchanged_once_for_all_chunks():
    mesh = sharding.make_mesh(dict(data=2, fsdp=4, tensor=1))
    keys = jax.random.split(jax.random.key(0), 3)
    x, head = jax.random.normal(keys[0], (16, 12, 8)), jax.random.normal(keys[1], (8, 20))
    codes = jax.random.randint(keys[2], (16, 12), 0, 20)

    def fn(params, x_BnD, codes_Bn):
        losses, correct = objectives.cross_entropy(x_BnD @ params["head"], codes_Bn, 0.1)
        return losses.sum(), correct.sum()

    def loss(x, head, codes):
        loss, correct = objectives.summed_in_chunks(fn, 4, {"head": head}, x, codes)
        return loss / codes.size, correct

    expected = with_gradients(lambda x, head, codes: whole_loss(x, head.T, codes))(x, head, codes)
    layouts = [NamedSharding(mesh, spec) for spec in (sharding.BATCH, P("fsdp"), sharding.BATCH)]
    with jax.set_mesh(mesh):
        given = jax.device_put((x, head, codes), tuple(layouts))
        compiled = with_gradients(loss).lower(*given).compile()
        found = compiled(*given)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)
    text = compiled.as_text()
    loops = re.findall(r" while\(.*body=%([\w.\-]+)", text)
    bodies = [text[text.index(f"%{loop} (") :].partition("\n}")[0] for loop in loops]
    exchanges = r" (all-reduce|reduce-scatter|all-gather)\("
    assert loops and not any(re.search(exchanges, body) for body in bodies)
    assert text.count(" reduce-scatter(") == 1


@pytest.mark.parametrize("classes, chunk", [(16_384, 32), (262_144, 2)])
def test_no_logits_of_the_whole_batch_are_held(classes, chunk):
    """64 images of 256 tokens: 1 GiB of float32 logits at 16,384 classes, 16 GiB at 262,144."""
    shapes = [(64, 256, 64), (classes, 64), (64, 256)]
    given = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in zip(shapes, (jnp.float32, jnp.float32, jnp.int32), strict=True)
    ]
    compiled = with_gradients(head_loss(chunk)).lower(*given).compile()
    held = compiled.memory_analysis().temp_size_in_bytes
    assert held < 0.75 * 2**30, f"{held / 2**20:.0f} MiB"

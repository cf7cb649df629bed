"""Guidance that is learned: what the teacher predicts, what the student learns, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.decoding import guidance, masked_loop, masked_plan
from maskgil_jax.pretrained import networks, presets
from maskgil_jax.runtime import trees
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import config_changes, distillation, generator_loss
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny

CODES = 64
FACTORED = dict(factors=(8, 8))


def distilling(**loss):
    config = tiny.generator()
    config.start_from.generator = "TEACHER"
    config.loss.update(distill_guidance=3.0, label_smoothing=0.0, condition_dropout=0.0)
    config.loss.update(loss)
    config.samples.guidance = 1.0
    return config


def noisy_network(seed=0, **model):
    """Of random weights whose predictions depend on the class."""
    config = distilling()
    config.model.update(dropout=0.0, **model)
    network = networks.init_network(
        presets.network_config(config.model, CODES, (4, 4), config.loss), jax.random.key(seed)
    )
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(network))))
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), network)


def some_examples():
    """Eight images, of which two more tokens are masked in each than in the one before."""
    rng = np.random.default_rng(0)
    masked = np.arange(16)[None] < 2 * np.arange(1, 9)[:, None]
    masked = rng.permuted(masked, axis=1).reshape(8, 4, 4)
    return {
        "codes": jnp.array(rng.integers(0, CODES, (8, 4, 4))),
        "masked": jnp.array(masked),
        "weight": jnp.array(masked / masked.sum(), jnp.float32),
        "condition": jnp.arange(8),
    }


def loss_of(network, examples, teacher):
    return generator_loss.weighted_loss(
        network, examples, None, label_smoothing=0.0, chunk=4, teacher=teacher
    )[0]


@pytest.mark.parametrize("ramp, form", [("linear", "scale"), ("cosine", "weight")])
def test_the_teacher_is_guided_as_decoding_would_be_with_as_many_masked_tokens(ramp, form):
    """At the masked shares of all steps."""
    network = noisy_network()
    options = dict(steps=5, guidance_ramp=ramp, guidance_form=form, schedule="cosine")
    options["guidance"] = 0.0 if form == "weight" else 1.0  # the student's
    teacher = distillation.teacher_of(distilling(), network, options)
    of_teacher = options | dict(guidance=2.0 if form == "weight" else 3.0)
    plan, numbers = masked_plan.plan(16, **of_teacher)
    for masked, scale in zip(plan.masked, numbers.guidance_S, strict=True):
        found = np.interp(masked / 16, teacher.shares_S, teacher.scales_S)
        np.testing.assert_allclose(found, scale, rtol=1e-6)
    assert numbers.guidance_S[0] == 1 and numbers.guidance_S[-1] == 3
    assert (np.diff(teacher.shares_S) > 0).all()


@pytest.mark.parametrize("model", [{}, FACTORED])
def test_the_teacher_predicts_what_guided_decoding_predicts(model):
    network = noisy_network(**model)
    examples = some_examples()
    teacher = distillation.Teacher(network, np.array([0, 1], "f4"), np.array([5, 1], "f4"))
    inputs = jnp.where(examples["masked"], network.config.mask_id, examples["codes"])
    given = inputs, examples["masked"], examples["condition"]
    features = distillation.guided_features(teacher, *given)
    positions = jnp.broadcast_to(jnp.arange(16), (8, 16))
    found = network.classify(features, positions)[..., :CODES]
    for image, share in enumerate(np.asarray(examples["masked"]).mean(axis=(1, 2))):
        one = slice(image, image + 1)
        expected = masked_loop.logits_at(
            network,
            network.backbone,
            inputs[one],
            guidance.with_negative(network, examples["condition"][one], None),
            positions[one],
            jnp.float32(5 - 4 * share),
        )
        np.testing.assert_allclose(found[one], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [{}, FACTORED])
def test_a_student_that_predicts_as_its_teacher_learns_nothing(model):
    """At scale 1 the teacher predicts as it does unguided: the loss is at its least there."""
    network = noisy_network(**model)
    examples = some_examples()
    unguided = distillation.Teacher(network, np.array([0, 1], "f4"), np.ones(2, "f4"))
    guided = unguided._replace(scales_S=np.full(2, 3, "f4"))
    gradient = jax.jit(jax.grad(loss_of))
    at_rest = optax.tree.norm(gradient(network, examples, unguided))
    moved = optax.tree.norm(gradient(network, examples, guided))
    assert at_rest < 1e-5 and moved > 100 * at_rest
    other = noisy_network(seed=1, **model)
    assert loss_of(other, examples, unguided) > loss_of(network, examples, unguided) + 1e-3


def test_a_student_comes_to_predict_unguided_as_its_teacher_guided():
    network = noisy_network()
    examples = some_examples()
    teacher = distillation.Teacher(network, np.array([0, 1], "f4"), np.full(2, 3, "f4"))
    # The least that any student can reach is the entropy of the teacher's predictions.
    inputs = jnp.where(examples["masked"], network.config.mask_id, examples["codes"])
    features = distillation.guided_features(
        teacher, inputs, examples["masked"], examples["condition"]
    )
    logits = network.classify(features, jnp.broadcast_to(jnp.arange(16), (8, 16)))
    entropies = optax.losses.softmax_cross_entropy(logits, jax.nn.softmax(logits))
    least = float((entropies * examples["weight"].reshape(8, 16)).sum())
    adam = optax.adam(3e-3)

    @jax.jit
    def learn(state):
        student, moments = state
        loss, grads = jax.value_and_grad(loss_of)(student, examples, teacher)
        updates, moments = adam.update(grads, moments, student)
        return (optax.apply_updates(student, updates), moments), loss

    state, losses = (network, adam.init(network)), []
    for _ in range(60):
        state, loss = learn(state)
        losses.append(float(loss))
    assert losses[0] > least + 0.05
    assert 0 < losses[-1] - least < 0.1 * (losses[0] - least)


@pytest.mark.slow
def test_a_run_learns_from_the_generator_that_it_starts_from(finished, tmp_path):
    """Two micro-batches too, on all devices; the model draws without guidance from then on."""
    config = distilling()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.start_from.generator = f"{finished}/model"
    config.samples.update(classes=2, per_class=1)
    config.evaluation.reference = ""
    config.accumulate_steps, config.ema_decay = 2, 0.0
    config.mesh.update(data=4, fsdp=2)
    run_stages(config, epath.Path(tmp_path))
    teacher, student = maskgil_jax.load(finished / "model"), maskgil_jax.load(tmp_path / "model")
    before, after = trees.flatten(teacher.network), trees.flatten(student.network)
    assert np.abs(np.asarray(before["head"]) - np.asarray(after["head"])).max() > 1e-6
    counted = []
    student.sample(np.arange(2), rng=0, steps=5, passes=counted.append)
    np.testing.assert_array_equal(counted, [[5, 5]])


def test_runs_whose_teachers_are_guided_otherwise_are_different_runs():
    """The ramp is one of the samples, which other runs may change."""
    configs = [distilling(), distilling()]
    configs[1].samples.guidance_ramp = "cosine"
    old, new = (json.loads(config.to_json_best_effort()) for config in configs)
    assert config_changes.differences(old, new) == ["samples.guidance_ramp: linear -> cosine"]
    assert config_changes.identity(configs[0]) != config_changes.identity(configs[1])
    for config in (*configs, old, new):
        config["loss"]["distill_guidance"] = 1.0
    assert config_changes.differences(old, new) == []
    assert config_changes.identity(configs[0]) == config_changes.identity(configs[1])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.start_from.update(generator=""), "start_from.generator is empty"),
        (lambda c: c.samples.update(guidance=2.0), r"set --config.samples.guidance=1$"),
        (lambda c: c.loss.update(label_smoothing=0.1), r"set --config.loss.label_smoothing=0$"),
        (
            lambda c: c.samples.update(guidance=1.0, guidance_form="weight"),
            r"set --config.samples.guidance=0$",
        ),
        (lambda c: c.loss.update(autoregressive_share=0.5), "predicts tokens one by one"),
        (lambda c: c.loss.update(distill_guidance=1e300), "expected a finite number"),
        (lambda c: c.loss.update(distill_guidance=-1.0), "expected 0 or more"),
        (
            lambda c: (c.model.update(num_classes=0), c.evaluation.update(reference="")),
            "no condition by which anything is guided",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_written(
    change, message, finished, tmp_path
):
    config = distilling()
    config.data.source = f"arrayrecord:{finished}/codes"
    change(config)
    with pytest.raises(InputError, match=rf"config.loss.distill_guidance = .*{message}"):
        run_stages(config, epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()

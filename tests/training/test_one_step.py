"""A student of one step: the gradients of both networks, what it comes to draw, what is refused."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.decoding import choosing, guidance, masked_loop
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.pretrained import networks, presets
from maskgil_jax.runtime import trees
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import distillation, generator_loss, one_step, step_shapes
from maskgil_jax.workflows.run import run_stages
from tests.helpers import known_joint, tiny

CODES = 64
FACTORED = dict(factors=(8, 8))
SCALE = 3.0


def one_step_config(**loss):
    config = tiny.generator()
    config.start_from.generator = "TEACHER"
    config.loss.update(distill_guidance=SCALE, one_step=0.4, label_smoothing=0.0)
    config.loss.update(loss)
    config.samples.update(guidance=1.0, steps=1)
    config.model.dropout = 0.0
    return config


def noisy_network(seed, **model):
    """Of random weights whose predictions depend on all that they read."""
    config = one_step_config()
    config.model.update(model)
    network = networks.init_network(
        presets.network_config(config.model, CODES, (4, 4), config.loss), jax.random.key(seed)
    )
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(network))))
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), network)


def some_examples(network):
    rng = np.random.default_rng(0)
    start = np.where(rng.random((8, 4, 4)) < 0.4, rng.integers(0, CODES, (8, 4, 4)), CODES)
    masked = rng.random((8, 4, 4)) < 0.6
    return {
        "codes": jnp.array(start),
        "masked": jnp.array(masked),
        "weight": jnp.array(masked / masked.sum(), jnp.float32),
        "condition": jnp.arange(8),
        "uniform": jnp.array(rng.random((8, 16, len(network.config.vocabularies))), jnp.float32),
    }


def loss_of(networks, examples, teacher, chunk=4):
    return one_step.loss(networks, examples, teacher=teacher, chunk=chunk)


def teacher_of(network, scale=SCALE):
    return distillation.Teacher(network, np.array([0, 1], "f4"), np.full(2, scale, "f4"))


def all_logits(network, codes_Bhw, condition, scale=None):
    """As decoding computes them: of all digits, [B, L, V]."""
    both = guidance.with_negative(network, condition, None) if scale else condition
    positions = jnp.broadcast_to(jnp.arange(16), (8, 16))
    return masked_loop.logits_at(network, network.backbone, codes_Bhw, both, positions, scale)


def digits_of(logits, sizes):
    return jnp.split(logits, np.cumsum(sizes)[:-1], axis=-1)


def drawn(network, examples):
    """What the student draws, inverting the cumulative distribution of each digit."""
    logits = all_logits(network, examples["codes"], examples["condition"])
    code, place = 0, 1
    for f, digit in enumerate(digits_of(logits, network.config.vocabularies)):
        after = np.cumsum(jax.nn.softmax(digit), axis=-1)
        code += place * (after <= np.asarray(examples["uniform"])[..., f, None]).sum(axis=-1)
        place *= digit.shape[-1]
    return code.reshape(8, 4, 4)


@pytest.mark.parametrize("model", [{}, FACTORED])
def test_the_gradients_are_those_of_the_definition(model):
    """The student's is (p of auxiliary - p of teacher) by its logits, the other's cross-entropy."""
    teacher = noisy_network(0, **model)
    pair = {"student": noisy_network(1, **model), "auxiliary": noisy_network(2, **model)}
    examples = some_examples(teacher)
    found, sums = jax.jit(jax.grad(loss_of, has_aux=True))(pair, examples, teacher_of(teacher))

    codes = jnp.array(drawn(pair["student"], examples))
    inputs = jnp.where(examples["masked"], CODES, codes)
    condition, weight = examples["condition"], examples["weight"].reshape(8, 16)
    sizes = teacher.config.vocabularies
    of_teacher = digits_of(all_logits(teacher, inputs, condition, jnp.float32(SCALE)), sizes)
    of_auxiliary = digits_of(all_logits(pair["auxiliary"], inputs, condition), sizes)
    log_p, log_q = (list(map(jax.nn.log_softmax, x)) for x in (of_teacher, of_auxiliary))

    def surrogate(student):
        logits = digits_of(all_logits(student, examples["codes"], condition), sizes)
        terms = [
            ((jnp.exp(q) - jnp.exp(p)) * x).sum(-1)
            for x, p, q in zip(logits, log_p, log_q, strict=True)
        ]
        return (sum(terms) * weight).sum()

    def cross_entropy(auxiliary):
        given = examples | {"codes": codes}
        return generator_loss.weighted_loss(auxiliary, given, None, label_smoothing=0.0, chunk=16)[
            0
        ]

    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, found["student"], jax.grad(surrogate)(pair["student"]))
    jax.tree.map(close, found["auxiliary"], jax.grad(cross_entropy)(pair["auxiliary"]))
    divergence = sum(
        ((jnp.exp(p) * (p - q)).sum(-1) * weight).sum() for p, q in zip(log_p, log_q, strict=True)
    )
    np.testing.assert_allclose(sums["divergence"], divergence, rtol=1e-4)
    loss, _ = loss_of(pair, examples, teacher_of(teacher))
    np.testing.assert_allclose(loss, cross_entropy(pair["auxiliary"]) + divergence, rtol=1e-4)


def test_a_student_rests_where_the_auxiliary_network_predicts_as_the_teacher():
    teacher = noisy_network(0)
    examples, gradient = some_examples(teacher), jax.jit(jax.grad(loss_of, has_aux=True))
    pair = {"student": noisy_network(1), "auxiliary": teacher}
    at_rest, sums = gradient(pair, examples, teacher_of(teacher, scale=1.0))
    moved, _ = gradient(pair, examples, teacher_of(teacher))
    assert abs(sums["divergence"]) < 1e-5
    norms = [float(optax.tree.norm(x["student"])) for x in (at_rest, moved)]
    assert norms[0] < 1e-4 * norms[1]


def test_chunks_change_nothing():
    teacher = noisy_network(0)
    pair = {"student": noisy_network(1), "auxiliary": noisy_network(2)}
    results = [
        loss_of(pair, some_examples(teacher), teacher_of(teacher), chunk)[0] for chunk in (2, 16)
    ]
    np.testing.assert_allclose(*results, rtol=1e-5)


@jax.tree_util.register_pytree_node_class
class Exact:
    """A network that knows a joint: what its head predicts from are the logits themselves."""

    of_head = ()

    def __init__(self, logits_GLV: jax.Array, config: Any):
        self.logits_GLV, self.config = logits_GLV, config

    def backbone(self, codes_Bhw, condition, key=None):
        L, codes = self.logits_GLV.shape[1:]
        places_L = (codes + 1) ** np.arange(L)[::-1]
        return self.logits_GLV[codes_Bhw.reshape(-1, L) @ places_L]

    def normed(self, x_BnD):
        return x_BnD

    def classify(self, x_BnD, positions_Bn=None):
        return x_BnD

    def drop_condition(self, condition, drop_B):
        return condition

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("table"), self.logits_GLV),), self.config

    def tree_flatten(self):
        return (self.logits_GLV,), self.config

    @classmethod
    def tree_unflatten(cls, config, leaves):
        return cls(leaves[0], config)


def test_one_pass_draws_a_joint_whose_cells_depend_on_one_another():
    """Where independent draws, all that one pass from masks alone can do, are far off.

    All three networks are tables, which can say whatever a network might.
    """
    chain = known_joint.chain()
    config = LlamaConfig(layers=1, dim=8, heads=1, codebook_size=2, num_classes=1, grid=(2, 2))
    exact = Exact(chain.logits_GLV, config)
    teacher, adam = teacher_of(exact, scale=1.0), optax.adam(0.03)

    def examples_of(key, n):
        keys = jax.random.split(key, 5)
        start = choosing.with_random_codes(
            jnp.full((n, 4), 2, jnp.int32),
            jnp.ones((n, 4), bool),
            0.75,
            jax.random.uniform(keys[0], (n, 4)),
            jax.random.randint(keys[1], (n, 4), 0, 2),
        )
        masked = jax.random.uniform(keys[2], (n, 4)) < jax.random.uniform(keys[3], (n, 1))
        return {
            "codes": start.reshape(n, 2, 2),
            "masked": masked.reshape(n, 2, 2),
            "weight": (masked / jnp.maximum(masked.sum(), 1)).reshape(n, 2, 2),
            "condition": jnp.zeros(n, jnp.int32),
            "uniform": jax.random.uniform(keys[4], (n, 4, 1)),
        }

    def learn(state, step):
        pair, moments = state
        examples = examples_of(jax.random.fold_in(jax.random.key(0), step), 1024)
        grads, _ = jax.grad(loss_of, has_aux=True)(pair, examples, teacher, 4)
        updates, moments = adam.update(grads, moments, pair)
        return (optax.apply_updates(pair, updates), moments), None

    def distance(student):
        examples = examples_of(jax.random.key(1), known_joint.N)
        x = student.backbone(examples["codes"], examples["condition"])
        tokens = jax.nn.softmax(x)[..., 1] > 1 - examples["uniform"][..., 0]
        return chain.distance(np.asarray(tokens, int))

    pair = {"student": exact, "auxiliary": exact}
    (after, _), _ = jax.jit(lambda state: jax.lax.scan(learn, state, jnp.arange(2000)))(
        (pair, adam.init(pair))
    )
    independent = 0.5 * np.abs(chain.independent.p_K - chain.p_K).sum()
    assert distance(after["student"]) < 0.2 * min(independent, distance(exact))


def of_finished(finished):
    config = one_step_config()
    config.data.source = f"arrayrecord:{finished}/codes"
    config.start_from.generator = f"{finished}/model"
    config.samples.update(classes=2, per_class=1)
    config.evaluation.reference = ""
    return config


@pytest.mark.slow
def test_a_run_ends_in_a_model_that_draws_in_one_pass(finished, tmp_path):
    """On all devices, in micro-batches, without averaged weights; a kept checkpoint draws too."""
    config = of_finished(finished)
    config.accumulate_steps, config.ema_decay, config.keep_every = 2, 0.0, 6
    config.mesh.update(data=4, fsdp=2)
    run_stages(config, epath.Path(tmp_path))
    teacher, student = maskgil_jax.load(finished / "model"), maskgil_jax.load(tmp_path / "model")
    before, after = trees.flatten(teacher.network), trees.flatten(student.network)
    assert np.abs(np.asarray(before["head"]) - np.asarray(after["head"])).max() > 1e-6
    assert dict(student.decoding) == {"guidance": 1.0, "steps": 1, "random_start": 0.4}
    counted = []
    codes = student.sample(np.arange(2), rng=0, passes=counted.append)
    np.testing.assert_array_equal(counted, [[1, 1]])
    kept = maskgil_jax.load(f"{tmp_path}@6")
    np.testing.assert_array_equal(kept.sample(np.arange(2), rng=0), codes)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(finished, tmp_path):
    whole = of_finished(finished)
    run_stages(whole, epath.Path(tmp_path / "whole"))
    config = of_finished(finished)
    config.optimizer.schedule = "constant"
    for steps in (4, 6):
        config.steps = steps
        run_stages(config, epath.Path(tmp_path / "halves"))
    first, second = (
        trees.flatten(maskgil_jax.load(tmp_path / name / "model").network)
        for name in ("whole", "halves")
    )
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.parametrize("one_step_share", [0.0, 0.4])
def test_a_plan_counts_the_teacher_and_all_that_is_trained(one_step_share):
    config = one_step_config(one_step=one_step_share)
    network = presets.network_config(config.model, CODES, (4, 4), config.loss)
    plain = config.copy_and_resolve_references().unlock()
    plain.loss.update(distill_guidance=1.0, one_step=0.0)
    of_student, of_plain = (step_shapes.of_generator(c, network) for c in (config, plain))
    size = sum(x.size for x in jax.tree.leaves(jax.eval_shape(of_plain.init).model))
    assert of_plain.frozen.teacher is None
    assert sum(x.size for x in jax.tree.leaves(of_student.frozen.teacher.network)) == size
    trained = jax.eval_shape(of_student.init).model
    times = 2 if one_step_share else 1
    assert sum(x.size for x in jax.tree.leaves(trained)) == times * size
    assert of_student.model_flops == times * of_plain.model_flops
    state = jax.eval_shape(of_student.init)
    after, metrics = jax.eval_shape(
        functools.partial(of_student.step, config=config),
        state,
        of_student.frozen,
        of_student.batch,
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["loss"].shape == ()


def test_a_plan_refuses_what_a_run_would():
    config = one_step_config(distill_guidance=1.0)
    network = presets.network_config(config.model, CODES, (4, 4), config.loss)
    with pytest.raises(InputError, match="but config.loss.distill_guidance = 1"):
        step_shapes.of_generator(config, network)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.loss.update(distill_guidance=1.0), "but config.loss.distill_guidance = 1"),
        (lambda c: c.samples.update(steps=8), r"set --config.samples.steps=1$"),
        (lambda c: c.model.update(dropout=0.1), r"set --config.model.dropout=0$"),
        (lambda c: c.loss.update(unmasked_weight=0.1), r"set --config.loss.unmasked_weight=0$"),
        (lambda c: c.loss.update(one_step=1.5), "expected 0 to 1"),
    ],
)
def test_what_would_be_ignored_is_refused_before_anything_is_written(
    change, message, finished, tmp_path
):
    config = of_finished(finished)
    change(config)
    with pytest.raises(InputError, match=rf"config.loss.one_step = .*{message}"):
        run_stages(config, epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()

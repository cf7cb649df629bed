import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import masked_loop, masked_options, masked_plan, token_sampling
from tests.helpers import golden

pytestmark = pytest.mark.gpu

RULES = golden.arrays("sampling_rules")
LOOPS = {  # steps, schedule, w, r_temp (see sampling_rules.json)
    "loop8": (8, "arccos", 3.0, 4.5),
    "loop12": (12, "cosine", 0.0, 2.0),
    "loop16": (16, "square", 1.5, 0.5),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_of_maskgil_is_reproduced_code_by_code(name):
    steps, schedule, w, r_temp = LOOPS[name]
    given = {k.removeprefix(f"{name}_"): v for k, v in RULES.items() if k.startswith(name)}
    table, cls, ctx = (jnp.asarray(given[k]) for k in ("table", "cls", "ctx"))
    pred, gumbel = jnp.asarray(given["pred"], jnp.int32), jnp.asarray(given["gumbel"])
    labels = jnp.array([3, 7])

    def network(codes, labels):
        return table[None] + cls[labels][:, None] + ctx[codes].mean(axis=1, keepdims=True)

    def guided(codes, scale):
        c, u = network(codes, labels), network(codes, jnp.full_like(labels, 10))
        return u + scale * (c - u)

    def predict(codes, positions, scale):
        logits = guided(codes, 1.0 if scale is None else scale)
        return jnp.take_along_axis(logits, positions[..., None], axis=1)

    def sample(step, logits, positions, divisor):
        tokens = jnp.take_along_axis(pred[step], positions, axis=1)
        return tokens, log_probability(logits, tokens), jnp.zeros(tokens.shape)

    plan, numbers = masked_plan.plan(
        256,
        steps=steps,
        guidance=w,
        guidance_form="weight",
        schedule=schedule,
        choice_temperature=r_temp,
    )
    model = masked_loop.Model(
        predict, sample, lambda step: gumbel[step], jnp.zeros((2, 256)), mask_id=24
    )
    counts = numbers.counts_SB
    codes = jax.jit(functools.partial(masked_loop.decode, model, plan=plan))(
        jnp.full((2, 256), 24, jnp.int32), numbers._replace(counts_SB=np.repeat(counts, 2, axis=1))
    )[-1]
    expected = given["code_final"].reshape(2, 256)
    np.testing.assert_array_equal(np.minimum(codes, 23), expected)

    # Every step on its own, from the official state before it, shows the official masks.
    for step in range(steps):
        before = jnp.asarray(given["code_before"][step].reshape(2, 256), jnp.int32)
        logits = guided(before, jnp.float32(numbers.guidance_S[step]))
        confidence = log_probability(logits, pred[step])
        confidence += numbers.choice_temperature_S[step] * gumbel[step]
        masked = np.asarray(before == 24)
        np.testing.assert_allclose(
            np.asarray(confidence)[masked], given["conf"][step][masked], atol=2e-5
        )
        revealed = masked_loop.most_confident(
            jnp.where(masked, confidence, -jnp.inf), jnp.array(counts[step, 0])
        )
        np.testing.assert_array_equal(
            masked & ~np.asarray(revealed), given["mask_after"][step].reshape(2, 256).astype(bool)
        )


def log_probability(logits, tokens):
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _fill(codes, options):
    """Decode with a network that knows nothing."""
    masked = np.asarray(codes == 10).sum(axis=1)
    plan, numbers = masked_plan.plan(masked, **options)
    shape = (len(codes), codes.shape[1])

    def sample(step, logits, positions, divisor):
        shape = (*positions.shape, 1)
        uniform = jax.random.uniform(jax.random.fold_in(jax.random.key(0), step), shape)
        return token_sampling.code(uniform, logits, (10,), divisor=divisor)

    model = masked_loop.Model(
        lambda codes, positions, scale: jnp.zeros((*positions.shape, 10)),
        sample,
        lambda step: jax.random.gumbel(jax.random.key(step), shape),
        jnp.tile(jnp.arange(shape[1]), (shape[0], 1)),
        mask_id=10,
    )
    return jax.jit(lambda codes: masked_loop.decode(model, codes, numbers, plan)[-1])(codes)


@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize("preset", ["maskgil", "maskgit", "halton", "titok_s128", "maskbit"])
def test_no_token_stays_masked(preset, steps):
    options = dataclasses.asdict(masked_options.PRESETS[preset]) | dict(steps=steps)
    codes = _fill(jnp.full((2, 64), 10), options)
    assert codes.shape == (2, 64) and (codes < 10).all() and (codes >= 0).all()


@pytest.mark.parametrize("preset", masked_options.PRESETS)
def test_presets_are_plans(preset):
    plan, numbers = masked_plan.plan(256, **dataclasses.asdict(masked_options.PRESETS[preset]))
    assert (
        len(plan.masked) == masked_options.PRESETS[preset].steps and numbers.counts_SB.sum() == 256
    )


def test_no_token_stays_masked_where_the_last_count_is_negative():
    _, numbers = masked_plan.plan(64, steps=40, schedule="root")
    assert numbers.counts_SB.min() < 0
    assert (_fill(jnp.full((1, 64), 10), dict(steps=40, schedule="root")) < 10).all()


@pytest.mark.parametrize("rule", masked_options.RULES)
def test_known_tokens_are_kept_however_many_an_image_has(rule):
    known = np.stack([np.arange(64) % 3 == 0, np.arange(64) > 1, np.ones(64, bool)])
    codes = _fill(jnp.where(known, 7, 10), dict(steps=4, rule=rule))
    assert (np.asarray(codes)[known] == 7).all()
    assert (codes < 10).all()


def always_0(step, logits, positions, divisor):
    """The same code wherever it is asked for, and confidences that say nothing."""
    return positions * 0, *[jnp.zeros(positions.shape)] * 2


def test_the_order_of_halton_decides_what_is_revealed():
    order = jnp.asarray(np.random.default_rng(0).permutation(16))
    seen = []

    def predict(codes, positions, scale):
        jax.debug.callback(lambda c: seen.append(np.asarray(c[0] != 10)), codes, ordered=True)
        return jnp.zeros((*positions.shape, 10))

    plan, numbers = masked_plan.plan(16, steps=4, rule="halton")
    model = masked_loop.Model(
        predict, always_0, lambda step: jnp.zeros((1, 16)), order[None], mask_id=10
    )
    jax.block_until_ready(masked_loop.decode(model, jnp.full((1, 16), 10), numbers, plan))
    counts = numbers.counts_SB[:, 0]
    for revealed, before in zip(seen, np.cumsum(counts) - counts, strict=True):
        np.testing.assert_array_equal(revealed, np.asarray(order) < before)


def test_only_what_is_masked_is_predicted_and_guided_only_where_it_is():
    shapes = []

    def predict(codes, positions, scale):
        shapes.append((positions.shape[1], scale is not None))
        return jnp.zeros((*positions.shape, 10))

    plan, numbers = masked_plan.plan(256, steps=8)
    model = masked_loop.Model(
        predict, always_0, lambda step: jnp.zeros((1, 256)), jnp.zeros((1, 256)), mask_id=10
    )
    masked_loop.decode(model, jnp.full((1, 256), 10), numbers, plan)
    masked = [256, 255, 237, 211, 179, 141, 98, 50]
    assert shapes == [(n, i > 0) for i, n in enumerate(masked)]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(steps=0), "steps = 0, expected 1 to 16"),
        (dict(steps=17), "steps = 17"),
        (dict(schedule="cos"), "schedule = 'cos'"),
        (dict(rule="x"), "rule = 'x'"),
        (dict(guidance_ramp="x"), "guidance_ramp = 'x'"),
        (dict(guidance_form="x"), "guidance_form = 'x'"),
        (dict(guidance=float("nan")), "guidance = nan"),
        (dict(temperature=0.0), "temperature = 0.0"),
        (dict(top_p=0.0), "top_p = 0.0"),
        (dict(rule="halton", schedule="cosine"), "schedule = 'cosine'"),
        (dict(stesp=3), "options .'stesp'."),
        (dict(rule="maskgit", schedule="square"), "mask schedule 'square'"),
        (dict(rule="maskgit", schedule="powx"), "mask schedule 'powx'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        masked_plan.plan(16, **options)

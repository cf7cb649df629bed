import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import masked
from tests import golden

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

    plan = masked.plan(
        256, steps=steps, guidance=1 + w, schedule=schedule, choice_temperature=r_temp
    )
    codes = masked.decode(
        guided,
        jnp.full((2, 256), 24, jnp.int32),
        mask_id=24,
        plan=plan,
        draw=lambda step, logits: pred[step],
        gumbel=lambda step: gumbel[step],
    )
    expected = given["code_final"].reshape(2, 256)
    np.testing.assert_array_equal(np.minimum(codes, 23), expected)

    # Every step on its own, from the official state before it, shows the official masks.
    for step in range(steps):
        before = jnp.asarray(given["code_before"][step].reshape(2, 256), jnp.int32)
        logits = guided(before, jnp.float32(plan.guidance[step]))
        confidence = masked.log_probability(logits, pred[step])
        confidence += plan.choice_temperature[step] * gumbel[step]
        hidden = np.asarray(before == 24)
        np.testing.assert_allclose(
            np.asarray(confidence)[hidden], given["conf"][step][hidden], atol=2e-5
        )
        revealed = masked.most_confident(
            jnp.where(hidden, confidence, -jnp.inf), jnp.array(plan.counts[step])
        )
        np.testing.assert_array_equal(
            hidden & ~np.asarray(revealed), given["mask_after"][step].reshape(2, 256).astype(bool)
        )


def _fill(codes, plan, key=0):
    return masked.decode(
        lambda codes, scale: jnp.zeros((*codes.shape, 10)),
        codes,
        mask_id=10,
        plan=plan,
        draw=lambda step, logits: jax.random.categorical(
            jax.random.fold_in(jax.random.key(key), step), logits
        ),
        gumbel=lambda step: jax.random.gumbel(jax.random.key(step), codes.shape),
    )


@pytest.mark.parametrize("rule, schedule", [("maskgil", "root"), ("maskgit", "cosine")])
@pytest.mark.parametrize("steps", [1, 5, 32])
def test_no_token_stays_hidden(rule, schedule, steps):
    plan = masked.plan(64, steps=steps, rule=rule, schedule=schedule)
    codes = _fill(jnp.full((2, 64), 10), plan)
    assert codes.shape == (2, 64) and (codes < 10).all() and (codes >= 0).all()


def test_known_tokens_are_kept():
    known = jnp.where(jnp.arange(64) % 3 == 0, 7, 10)[None]
    codes = _fill(known, masked.plan(64, steps=4))
    np.testing.assert_array_equal(codes[:, ::3], 7)
    assert (codes < 10).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(steps=0), "steps = 0, expected 1 to 16"),
        (dict(steps=17), "steps = 17"),
        (dict(schedule="cos"), "schedule = 'cos'"),
        (dict(rule="x"), "rule = 'x'"),
        (dict(guidance_ramp="x"), "guidance_ramp = 'x'"),
        (dict(temperature=0.0), "temperature = 0.0"),
        (dict(rule="maskgit", schedule="square"), "mask schedule 'square'"),
        (dict(rule="maskgit", schedule="powx"), "mask schedule 'powx'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        masked.plan(16, **options)

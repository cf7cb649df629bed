"""Rules on distributions that are known whole: total variation against steps.

The network is exact there (helpers/known_joint.py), so that an error is the rule's own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import choosing, masked_loop, masked_plan
from tests.helpers import known_joint

CHAIN, COPIES = known_joint.chain(), known_joint.copies()


@functools.cache
def distance(rule, steps, **options):
    """Of draws of the chain."""
    schedule = {} if rule == "halton" else dict(schedule="uniform")
    drawn = CHAIN.draw(rule=rule, steps=steps, choice_temperature=1.0, **schedule, **options)
    return CHAIN.distance(drawn[-1])


@pytest.mark.parametrize("rule", ["choose", "entropy", "halton"])
def test_tokens_chosen_before_they_are_drawn_are_exact_one_at_a_time(rule):
    """And the more are drawn at once, the more they lack of one another."""
    assert distance(rule, 4) < 1.6 * CHAIN.noise
    assert 3 * CHAIN.noise < distance(rule, 2) < distance(rule, 1)


@pytest.mark.parametrize("rule", ["maskgit", "moment"])
def test_a_choice_by_what_was_drawn_is_biased_however_many_steps(rule):
    """The moment sampler keeps MaskGIT's bias, which is a temperature."""
    assert distance(rule, 4) > 6 * CHAIN.noise


def test_one_step_draws_each_cell_by_itself():
    drawn = CHAIN.draw(rule="moment", steps=1, schedule="uniform")[-1]
    assert CHAIN.independent.distance(drawn) < 1.6 * CHAIN.independent.noise
    assert CHAIN.distance(drawn) > 10 * CHAIN.noise


def test_the_moment_sampler_chooses_and_draws_as_maskgit():
    """Of many tokens without context a few are revealed: of which positions, and which codes."""
    n, L, few = 4000, 200, 2
    p_kind = np.array([[0.6, 0.3, 0.1], [0.34, 0.33, 0.33]])
    logits_LV = jnp.log(jnp.asarray(p_kind))[np.arange(L) % 2]
    kinds = functools.partial(revealed_kinds, logits_LV, n, few)
    maskgit, moment, choose = (kinds(rule) for rule in ("maskgit", "moment", "choose"))
    expected = p_kind**2 / (p_kind**2).sum()  # at a choice temperature of 1
    np.testing.assert_allclose(moment, expected, atol=0.02)
    np.testing.assert_allclose(maskgit, moment, atol=0.02)
    np.testing.assert_allclose(choose.sum(axis=1), moment.sum(axis=1), atol=0.02)
    of_kind = choose.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(choose / of_kind, p_kind, atol=0.03)


def revealed_kinds(logits_LV, n, few, rule):
    """Shares of kind of position and code among the first tokens that a rule reveals, [2, V]."""
    L, V = logits_LV.shape
    plan, numbers = masked_plan.plan(np.full(n, L), rule=rule, steps=2, schedule="cosine")
    counts = np.stack([np.full(n, few), np.full(n, L - few)])
    numbers = numbers._replace(counts_SB=counts, choice_temperature_S=np.ones(2, np.float32))
    key = jax.random.key(3)

    def sample(step, logits, positions, divisor):
        drawn = jax.random.categorical(jax.random.fold_in(key, step), logits / divisor)
        log_p = jax.nn.log_softmax(logits / divisor)
        return drawn, jnp.take_along_axis(log_p, drawn[..., None], -1)[..., 0], jnp.zeros((n, L))

    model = masked_loop.Model(
        lambda codes, positions, scale: logits_LV[positions],
        sample,
        lambda step: jax.random.gumbel(jax.random.fold_in(key, 10 + step), (n, L)),
        jnp.zeros((n, L)),
        mask_id=V,
    )
    run = jax.jit(lambda codes: masked_loop.decode(model, codes, numbers, plan)[0])
    codes = np.asarray(run(jnp.full((n, L), V)))
    image, place = np.nonzero(codes < V)
    assert len(image) == n * few
    shares = np.zeros((2, V))
    np.add.at(shares, (place % 2, codes[image, place]), 1 / len(image))
    return shares


@pytest.mark.parametrize("rule", ["entropy", "halton"])
def test_an_entropy_budget_draws_what_is_certain_at_no_error(rule):
    """A copy is known as soon as its cell is: all are drawn in fewer steps than there are cells."""
    schedule = {} if rule == "halton" else dict(schedule="uniform")
    drawn = COPIES.draw(rule=rule, steps=8, entropy_budget=0.01, **schedule)
    assert COPIES.distance(drawn[-1]) < 1.6 * COPIES.noise
    assert known_joint.passes(drawn, 2).max() < 8


def test_the_larger_the_budget_the_fewer_steps_and_the_larger_the_error():
    found = [CHAIN.draw(rule="entropy", steps=4, schedule="uniform", entropy_budget=b)
             for b in (0.01, 0.65, 5.0)]  # fmt: skip
    steps = [known_joint.passes(drawn, 2).mean() for drawn in found]
    errors = [CHAIN.distance(drawn[-1]) for drawn in found]
    assert steps[0] == 4 and steps[2] == 1 and steps[2] < steps[1] < steps[0]
    assert errors[0] < 1.6 * CHAIN.noise < errors[1] < errors[2]


def test_steps_after_the_last_image_is_done_do_not_run():
    ran = []

    def predict(codes, positions, scale):
        jax.debug.callback(lambda: ran.append(1), ordered=True)
        return COPIES.predict(codes, positions, scale)

    joint = known_joint.copies()
    joint.predict = predict
    drawn = joint.draw(n=50, rule="entropy", steps=8, schedule="uniform", entropy_budget=0.01)
    jax.effects_barrier()
    assert len(ran) == known_joint.passes(drawn, 2).max() < 8


def test_masking_again_corrects_what_was_drawn_at_once():
    """Two tokens a step: of four steps, half of them drawn again, or of two."""
    assert distance("choose", 4, remask=1.0) < distance("choose", 2) - 2 * CHAIN.noise


def test_what_is_hidden_was_drawn_and_is_as_much_as_is_planned():
    drawn = CHAIN.draw(n=500, rule="choose", steps=4, schedule="uniform", remask=1.0)
    known = (drawn < 2).sum(axis=2)
    np.testing.assert_array_equal(known, np.repeat([[1], [2], [3], [4]], 500, axis=1))
    assert ((drawn[:-1] < 2) & (drawn[1:] == 2)).any(), "no cell was masked again"


def test_what_was_less_likely_is_masked_again_rather():
    p = jnp.array([[0.0, 1.0, 0.5, 0.0]])
    mine = jnp.array([[True, True, True, False]])
    gumbel = jax.random.gumbel(jax.random.key(0), (5000, 4))

    def masked(gumbel_L):
        arguments = (p, mine, mine, jnp.array([-1]), jnp.float32(1), gumbel_L[None])
        return choosing.remasked(*arguments)[0]

    shares = np.asarray(jax.vmap(masked)(gumbel)).mean(axis=0)
    weights = np.exp(-np.array([0.0, 1.0, 0.5]))
    np.testing.assert_allclose(shares[:3], weights / weights.sum(), atol=0.03)
    assert shares[3] == 0


def test_entropy_and_moment_are_those_of_codes_of_independent_digits():
    sizes, rng = (3, 4), np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((5, 7)), jnp.float32)
    chances = choosing.Chances(logits, sizes, 0, 1.0)
    first, second = (np.exp(x) for x in chances.log_ps)
    p = (first[:, :, None] * second[:, None]).reshape(5, -1)
    np.testing.assert_allclose(chances.entropy, -(p * np.log(p)).sum(axis=1), rtol=1e-5)
    a = 0.5
    found = chances.log_moment(jnp.float32(a))
    np.testing.assert_allclose(found, a * np.log((p ** (1 + 1 / a)).sum(axis=1)), rtol=1e-5)
    likeliest = choosing.Chances(logits, sizes, 2, 1.0).log_moment(jnp.float32(0))
    assert np.isfinite(likeliest).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(guidance_from=0.6, guidance_to=0.5), "guidance_from = 0.6 and guidance_to = 0.5"),
        (dict(entropy_budget=-1.0), "entropy_budget = -1.0, expected 0 or more"),
        (dict(remask=1.5), "remask = 1.5, expected 0 to 1"),
        (dict(remask=0.5, entropy_budget=1.0), "entropy_budget = 1.0 with remask = 0.5"),
    ],
)
def test_options_that_no_plan_can_have_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        masked_plan.plan(16, **options)


def test_steps_outside_of_the_interval_run_one_pass():
    whole, _ = masked_plan.plan(64, steps=8, guidance_ramp="constant")
    half, numbers = masked_plan.plan(
        64, steps=8, guidance_ramp="constant", guidance_from=0.25, guidance_to=0.75
    )
    assert (whole.passes, half.passes) == (16, 12)
    assert half.guided == (False,) * 2 + (True,) * 4 + (False,) * 2
    np.testing.assert_array_equal(numbers.guidance_S != 1, half.guided)


def test_steps_without_tokens_are_no_passes():
    plan, _ = masked_plan.plan(2, rule="dimoo", schedule="cosine", steps=64, guidance=1.0)
    assert plan.passes == 8, "the first of the segments of eight steps runs, and no other"

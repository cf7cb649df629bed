"""The PyTorch sampler that the package ships draws our codes, given the same noise."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maskgil_jax.decoding import schedules, token_sampling
from maskgil_jax.interop import engine, maskgil, maskgil_torch
from maskgil_jax.interop.maskgil_torch import sampling
from maskgil_jax.interop.maskgil_torch import schedules as torch_schedules
from maskgil_jax.models.token_models.llama_config import PRESETS
from tests.helpers import tiny_llama

SEED, START, B, MASK = 3, 5, 3, 20
CLASSES = np.array([0, 4, 2])
FEATURES = dict(num_classes=0, feature_dim=7, condition_tokens=4, feature_norm=True)


class OurNoise(sampling.Noise):
    """The random numbers of maskgil_jax.decoding."""

    def __init__(self):
        self.keys = token_sampling.image_keys(jax.random.key(SEED), START, B)

    def of_step(self, step, use, draw, shape):
        fold_in = jax.random.fold_in
        numbers = [draw(fold_in(fold_in(key, step), use), shape) for key in self.keys]
        return torch.from_numpy(np.stack(numbers))

    def uniform(self, step, L, F):
        return self.of_step(step, 0, jax.random.uniform, (L, F))

    def gumbel(self, step, L):
        return self.of_step(step, 1, jax.random.gumbel, (L,))

    def offset(self, L):
        return torch.tensor([int(jax.random.randint(key, (), 0, L)) for key in self.keys])

    def token(self, index, F):
        numbers = [jax.random.uniform(jax.random.fold_in(key, index), (F,)) for key in self.keys]
        return torch.from_numpy(np.stack(numbers))


def in_torch(network):
    tensors = engine.dump(maskgil.entries(network.config), network)
    module = maskgil_torch.MaskGIL(dataclasses.asdict(network.config))
    module.load_state_dict({name: torch.tensor(x) for name, x in tensors.items()})
    return module.eval()


def features(seed):
    rng = np.random.default_rng(seed)
    mask = np.arange(4) < rng.integers(1, 5, (B, 1))
    return rng.standard_normal((B, 4, 7), np.float32), mask


def as_tensors(condition):
    if isinstance(condition, tuple):
        return tuple(map(torch.from_numpy, condition))
    return None if condition is None else torch.from_numpy(condition)


def check_same(generator, condition=CLASSES, negative=None, codes=None, **options):
    given = dict(negative=negative, start=START, **options)
    ours = generator.sample(
        condition, SEED, **given | (dict(codes=codes) if codes is not None else {})
    )
    sample = sampling.sample_causal if generator.kind == "causal" else sampling.sample_masked
    theirs = sample(
        in_torch(generator.network),
        as_tensors(condition),
        negative=as_tensors(negative),
        noise=OurNoise(),
        **dict(codes=torch.from_numpy(codes)) if codes is not None else {},
        **options,
    )
    np.testing.assert_array_equal(theirs, ours)
    assert len(np.unique(theirs)) > 3


MASKED = {
    "maskgil": (dict(), dict(steps=4)),
    "unguided, top k": (
        PRESETS["maskgil_released"],
        dict(steps=3, rule="maskgit", schedule="pow2.5", guidance=1.0, top_k=5),
    ),
    "titok": (
        dict(post_norm="output"),
        dict(steps=4, rule="titok", schedule="log", guidance_form="weight", guidance=1.5)
        | dict(guidance_ramp="power_cosine", temperature_schedule="titok", choice_temperature=9.5),
    ),
    "maskbit, top p": (
        dict(condition_position="last", condition_rope="identity"),
        dict(steps=3, rule="maskbit", schedule="cosine", guidance_ramp="cosine", top_p=0.7),
    ),
    "halton": (
        dict(),
        dict(steps=4, rule="halton", guidance_ramp="constant", temperature_schedule="halton"),
    ),
    "of digits, another grid": (
        dict(factors=(5, 4)),
        dict(steps=9, schedule="root", grid=(4, 5), top_k=4, top_p=0.9, temperature=0.8),
    ),
}


@pytest.mark.parametrize("case", MASKED)
def test_masked_decoding_draws_our_codes(case):
    network, options = MASKED[case]
    check_same(tiny_llama.masked(**network), **options)


def test_what_is_known_stays_and_negative_features_are_led_away_from():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 20, (B, 3, 4))
    codes[rng.random(codes.shape) < np.array([0.3, 0.9, 0.6])[:, None, None]] = MASK
    generator = tiny_llama.masked(**FEATURES)
    check_same(generator, features(1), negative=features(2), codes=codes, steps=3)


CAUSAL = {
    "guided": (PRESETS["llamagen"], CLASSES, dict(top_k=7)),
    "guided at first, of digits, in Halton's order": (
        dict(causal=True, order="halton", factors=(4, 5)),
        CLASSES,
        dict(guidance=4.0, guidance_interval=3, tokens=9, top_p=0.8),
    ),
    "features": (FEATURES | dict(causal=True), features(1), dict(temperature=0.7)),
    "greedy": (PRESETS["llamagen"], CLASSES, dict(guidance=1.0, temperature=0.0)),
}


@pytest.mark.parametrize("case", CAUSAL)
def test_decoding_token_by_token_draws_our_codes(case):
    network, condition, options = CAUSAL[case]
    check_same(tiny_llama.causal(**network), condition, **options)


def test_a_hybrid_of_one_network_reads_its_own_prefix_as_we_do():
    generator = tiny_llama.masked(**FEATURES | dict(causal_prefix=True, order="halton"))
    condition = features(1)
    prefix = generator.as_causal().sample(condition, SEED, tokens=5, start=START, top_k=9)
    ours = generator.sample(condition, SEED, codes=prefix, prefix=5, start=START, steps=3)
    theirs = maskgil_torch.sample(
        in_torch(generator.network),
        as_tensors(condition),
        method="hybrid",
        prefix=5,
        prefix_top_k=9,
        steps=3,
        noise=OurNoise(),
    )
    np.testing.assert_array_equal(theirs, ours)


def test_a_hybrid_of_two_networks_has_the_prefix_of_the_first():
    causal, masked = tiny_llama.causal(), tiny_llama.masked()
    given = dict(seed=1, steps=3, guidance=1.0)
    models = in_torch(causal.network), in_torch(masked.network)
    first = maskgil_torch.sample(models[0], torch.from_numpy(CLASSES), seed=1)
    both = maskgil_torch.sample(
        models[1],
        torch.from_numpy(CLASSES),
        method="hybrid",
        prefix=7,
        prefix_model=models[0],
        **given,
    )
    assert (both.flatten(1)[:, :7] == first.flatten(1)[:, :7]).all()
    assert (both.flatten(1)[:, 7:] != first.flatten(1)[:, 7:]).any() and (both < MASK).all()


@pytest.mark.parametrize("method", ["masked", "autoregressive"])
def test_an_image_depends_on_its_seed_and_index_alone(method):
    generator = tiny_llama.masked() if method == "masked" else tiny_llama.causal()
    model, classes = in_torch(generator.network), torch.from_numpy(CLASSES)
    together = maskgil_torch.sample(model, classes, seed=1)
    alone = maskgil_torch.sample(model, classes[2:], seed=1, start=2)
    np.testing.assert_array_equal(together[2:], alone)
    assert (maskgil_torch.sample(model, classes, seed=2) != together).any()


@pytest.mark.parametrize("causal", [False, True])
def test_a_model_in_bfloat16_draws(causal):
    model = in_torch(tiny_llama.built(**FEATURES, causal=causal)).bfloat16()
    codes = maskgil_torch.sample(model, as_tensors(features(1)), top_k=3, top_p=0.9)
    assert codes.shape == (B, 3, 4) and 0 <= codes.min() < codes.max() < MASK


def test_noise_has_its_distribution():
    noise = sampling.Noise(seed=0, start=0, batch=4)
    uniform, gumbel = noise.uniform(0, 5000, 1), noise.gumbel(0, 5000)
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1
    np.testing.assert_allclose(uniform.mean((1, 2)), 0.5, atol=0.02)
    np.testing.assert_allclose(gumbel.mean(1), np.euler_gamma, atol=0.06)
    np.testing.assert_allclose(gumbel.var(1), np.pi**2 / 6, atol=0.2)
    assert {*noise.offset(3).tolist()} <= {0, 1, 2}


@pytest.mark.parametrize("rule", sampling.RULES)
def test_each_step_reveals_as_many_tokens_as_ours(rule):
    from maskgil_jax.decoding import masked_options

    named = dict(maskgil=schedules.REVEAL_CURVES, halton=["arccos"]).get(
        rule, ["uniform", "cosine", "log", "exp", "arccos", "pow2", "pow0.5"]
    )
    ours, theirs = masked_options.RULES[rule], sampling.RULES[rule]
    for schedule, steps, tokens in itertools.product(
        named, (1, 2, 3, 4, 5, 8, 12, 16, 20, 32), (32, 99, 144, 256, 576, 1024)
    ):
        np.testing.assert_array_equal(
            theirs.counts(schedule, steps, tokens),
            ours.counts(schedule, steps, tokens),
            f"{schedule}, {steps} steps, {tokens} tokens",
        )
    assert theirs.confidence == ours.confidence
    for steps in (1, 2, 7):
        np.testing.assert_allclose(theirs.ramp(steps), ours.ramp(steps), rtol=1e-14)
        np.testing.assert_allclose(theirs.noise(steps), ours.noise(steps), atol=1e-14)


def test_ramps_and_temperatures_are_ours():
    fraction = np.linspace(0, 1, 7)
    assert [*torch_schedules.GUIDANCE_RAMPS] == [*schedules.GUIDANCE_RAMPS]
    for ramp in schedules.GUIDANCE_RAMPS:
        np.testing.assert_allclose(
            torch_schedules.guidance_scales(4.5, ramp, torch.from_numpy(fraction)),
            schedules.guidance_scales(4.5, ramp, fraction),
            rtol=1e-6,
        )
    assert [*torch_schedules.TEMPERATURES] == [*schedules.TEMPERATURES]
    for name, ours in schedules.TEMPERATURES.items():
        np.testing.assert_allclose(torch_schedules.TEMPERATURES[name](8), ours(8), rtol=1e-6)


def test_options_are_ours_but_those_that_an_export_refuses():
    from maskgil_jax.decoding import autoregressive, masked_options
    from maskgil_jax.interop import torch_folder

    for ours, theirs in (
        (masked_options.Options(), sampling.Masked()),
        (autoregressive.Options(), sampling.Causal()),
    ):
        found = dataclasses.asdict(theirs)
        assert found.pop("guidance") is None
        expected = {
            name: value
            for name, value in dataclasses.asdict(ours).items()
            if name != "guidance" and name not in torch_folder.ONLY_HERE
        }
        assert found == expected


@pytest.mark.parametrize("asked", [dict(rule="choose"), dict(remask=0.5), dict(cache_ratio=0.5)])
def test_an_export_refuses_what_pytorch_does_not_decode(asked):
    from maskgil_jax.decoding import masked_options
    from maskgil_jax.interop import torch_folder
    from maskgil_jax.interop.decoding_arguments import Decoding
    from maskgil_jax.runtime.errors import InputError

    preset = dataclasses.asdict(masked_options.PRESETS["titok_l32"])
    given = torch_folder.in_torch(Decoding("masked", preset, 0, {}, (3, 4)))
    assert given.options.keys() <= dataclasses.asdict(sampling.Masked()).keys()
    (name, value), *_ = asked.items()
    with pytest.raises(InputError, match=f"arg={name}={value}: the PyTorch source"):
        torch_folder.in_torch(Decoding("masked", preset | asked, 0, {}, (3, 4)))


def test_a_draw_follows_the_probabilities():
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0]).expand(1000, 4)
    uniform = (torch.arange(1000)[:, None] + 0.5) / 1000
    code, log_p, logit = sampling.draw(uniform, logits, [4], 0.5, 3, 1.0)
    p = torch.softmax(torch.tensor([1.0, -torch.inf, 4.0, 0.0]), 0)
    np.testing.assert_allclose(torch.bincount(code, minlength=4) / 1000, p, atol=0.002)
    np.testing.assert_allclose(log_p.exp(), p[code], rtol=1e-5)
    np.testing.assert_array_equal(logit, logits[0][code])


def test_logits_that_are_not_finite_draw_nothing():
    network = tiny_llama.built()
    network.head = jax.tree.map(lambda x: x.at[0, 0].set(jnp.nan), network.head)
    with pytest.raises(ValueError, match="logits are not finite"):
        maskgil_torch.sample(in_torch(network), torch.tensor([0]))


def test_options_that_no_decoding_can_use_are_refused():
    model, classes = in_torch(tiny_llama.built()), torch.tensor([0])
    with pytest.raises(ValueError, match="steps = 13, expected 1 to 12"):
        maskgil_torch.sample(model, classes, steps=13)
    with pytest.raises(ValueError, match="method = 'fast', expected masked, autoregressive"):
        maskgil_torch.sample(model, classes, method="fast")
    with pytest.raises(TypeError, match="speed"):
        maskgil_torch.sample(model, classes, speed=2)
    with pytest.raises(ValueError, match="codebooks of 16 and 20 codes"):
        other = in_torch(tiny_llama.built(codebook_size=16))
        maskgil_torch.sample(model, classes, method="hybrid", prefix=3, prefix_model=other)
    unconditional = in_torch(tiny_llama.built(num_classes=0))
    with pytest.raises(ValueError, match="guidance = 2.0, but this model is unconditional"):
        maskgil_torch.sample(unconditional, classes, guidance=2.0)

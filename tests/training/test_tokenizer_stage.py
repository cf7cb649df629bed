import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

import maskgil_jax
from maskgil_jax.models.perceptual.discriminator import Judgement
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import tokenizer_objective, tokenizer_stage, tokenizer_step
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny

IMAGES = np.random.default_rng(0).integers(256, size=(4, 8, 8, 3), dtype=np.uint8)


def start(config):
    networks = (
        tokenizer_stage.tokenizer_config(config),
        tokenizer_stage.discriminator_config(config),
    )
    return jax.jit(lambda: tokenizer_step.init(config, *networks, {}))()


def stepper(config):
    step = jax.jit(functools.partial(tokenizer_step.step, config=config))
    return lambda state: step(state, None, {"image": jnp.asarray(IMAGES)})


def largest_difference(a, b):
    differences = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)
    return max(jax.tree.leaves(differences))


@pytest.mark.slow
def test_adversarial_training_starts_at_its_step():
    config = tiny.tokenizer()
    config.loss.update(adversarial_start=1)
    states, step = [start(config)], stepper(config)
    for _ in range(2):
        state, metrics = step(states[-1])
        states.append(state)
    judges = [state.model["discriminator"].convs for state in states]
    assert largest_difference(judges[0], judges[1]) == 0
    assert largest_difference(judges[1], judges[2]) > 0
    assert metrics["discriminator_loss"] > 0


@pytest.mark.slow
def test_a_discriminator_that_no_loss_needs_is_not_trained():
    ends, metrics = {}, {}
    for weight in (0.0, 1e-30):
        config = tiny.tokenizer()
        config.loss.update(feature_weight=0.0, adversarial_weight=weight, adversarial_start=0)
        first = start(config)
        ends[weight], metrics[weight] = stepper(config)(first)
    judges = [state.model["discriminator"].convs for state in (first, ends[0.0], ends[1e-30])]
    assert largest_difference(judges[0], judges[1]) == 0 < largest_difference(judges[0], judges[2])
    assert metrics[1e-30].keys() - metrics[0.0].keys() == {
        "discriminator_loss",
        "adversarial_loss",
        "adaptive_weight",
    }
    trained = [nnx.state(ends[weight].model["tokenizer"]) for weight in ends]
    assert largest_difference(*trained) < 1e-5  # the tokenizer does not notice


@pytest.mark.slow
def test_dead_codes_restart_at_latents_of_the_batch():
    config = tiny.tokenizer()
    config.codebook.update(restart_every=2, usage_window=64)  # the codes of one batch
    config.optimizer.learning_rate = 1e-9
    step = stepper(config)
    first, metrics = step(start(config))
    assert metrics["restarted_codes"] == 0  # not yet its turn
    second, metrics = step(first)
    used = np.unique(second.memory["codes"])
    assert metrics["restarted_codes"] == 64 - len(used) > 0
    assert metrics["codebook_usage"] == len(used) / 64

    images = jnp.asarray(IMAGES) / 127.5 - 1
    tokenizer = first.model["tokenizer"]
    latents = np.asarray(tokenizer.comparable(tokenizer.latents(images))).reshape(-1, 4)
    before, after = (s.model["tokenizer"].codebook[...] for s in (first, second))
    averaged = second.ema.codebook[...]
    moments = [
        leaf[...]
        for path, leaf in jax.tree.leaves_with_path(second.optimizer["tokenizer"])
        if "codebook" in jax.tree_util.keystr(path)
    ]
    assert len(moments) == 2
    for code in range(64):
        if code in used:
            np.testing.assert_allclose(after[code], before[code], atol=1e-6)
        else:
            assert np.abs(latents - after[code]).max(axis=1).min() < 1e-5
            np.testing.assert_array_equal(after[code], averaged[code])
            assert not any(moment[code].any() for moment in moments)


@pytest.mark.slow
def test_a_micro_batch_at_a_time_gives_the_same_usage_and_nearly_the_same_step():
    """Nearly, since the discriminator's batch statistics are those of the micro-batch."""
    config = tiny.tokenizer()
    config.loss.update(feature_weight=0.0, adversarial_weight=0.0)
    whole, metrics = stepper(config)(start(config))
    config.accumulate_steps = 2
    parts, of_parts = stepper(config)(start(config))
    assert metrics["codebook_usage"] == of_parts["codebook_usage"]
    np.testing.assert_allclose(metrics["loss"], of_parts["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], of_parts["gradient_norm"], rtol=1e-4)


def loss_of(recipe):
    """The losses and the optimizer's decays of a published recipe, on a tiny network."""
    file, _, argument = recipe.partition(":")
    given = importlib.import_module(f"configs.{file}").get_config(*filter(None, [argument]))
    config = tiny.tokenizer()
    config.loss.update(given.loss)
    config.loss.update(perceptual_weight=0.0, adversarial_start=5)
    config.discriminator.kind = given.discriminator.kind
    config.model.update(style=given.model.style, quantizer=given.model.quantizer)
    config.model.codebook_size = 2**config.model.codebook_dim
    config.optimizer.update(given.optimizer)
    config.optimizer.update(learning_rate=2e-3, milestones=(25,))
    return config


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vq16", "maskgit_vq", "maskgit_vq:google", "magvit2"])
def test_each_recipe_learns_to_give_a_batch_back(recipe):
    config = loss_of(recipe)
    state, step, metrics = start(config), stepper(config), []
    for _ in range(30):
        state, found = step(state)
        metrics.append({name: float(value) for name, value in found.items()})
    assert all(np.isfinite(list(found.values())).all() for found in metrics)
    errors = [found["mean_squared_error"] for found in metrics]
    assert np.mean(errors[-5:]) < 0.8 * np.mean(errors[:3]), errors
    assert [found["discriminator_loss"] > 0 for found in metrics] == [False] * 5 + [True] * 25
    assert metrics[-1]["learning_rate"] < metrics[0]["learning_rate"]


class LinearJudge:
    """Logit w . image for one patch; its gradient is w."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, images, *, train):
        return Judgement((images * self.weights).sum(axis=(1, 2, 3))[:, None], [], [])


def test_r1_is_the_squared_gradient_at_real_images_and_lecam_follows_the_running_means():
    weights = jax.random.normal(jax.random.key(0), (8, 8, 3)) / 10
    judge, real = LinearJudge(weights), jnp.asarray(IMAGES) / 127.5 - 1
    fake, lecam = real[::-1] * 0.5, {"real": jnp.float32(0.3), "fake": jnp.float32(-0.2)}

    def loss(**changes):
        settings = tiny.tokenizer().loss
        settings.update(changes)
        return tokenizer_objective.discriminator_loss(
            judge, real, fake, lecam, jnp.ones(()), settings
        )

    plain, found = loss()
    np.testing.assert_allclose(loss(r1_weight=3.0)[0] - plain, 3 * (weights**2).sum(), rtol=1e-5)
    logits = {"real": (real * weights).sum((1, 2, 3)), "fake": (fake * weights).sum((1, 2, 3))}
    means = {side: 0.999 * lecam[side] + 0.001 * logits[side].mean() for side in lecam}
    np.testing.assert_allclose(
        [found.lecam["real"], found.lecam["fake"]], [means["real"], means["fake"]], rtol=1e-5
    )
    regulariser = (
        np.maximum(logits["real"] - means["fake"], 0) ** 2
        + np.maximum(means["real"] - logits["fake"], 0) ** 2
    ).mean()
    np.testing.assert_allclose(loss(lecam_weight=2.0)[0] - plain, 2 * regulariser, rtol=1e-4)


@pytest.mark.slow
def test_training_goes_on_from_trained_networks(finished, tmp_path):
    trained = finished / "tokenizer"
    config = tiny.tokenizer()
    config.steps, config.optimizer.learning_rate, config.ema_decay = 1, 0.0, 0.0
    config.evaluation.reference = ""
    config.start_from.update(
        tokenizer=str(trained / "model"), discriminator=str(trained / "discriminator")
    )
    run_stages(config, epath.Path(tmp_path))
    for part in ("model", "discriminator"):
        old, new = (maskgil_jax.load(path / part) for path in (trained, epath.Path(tmp_path)))
        old, new = ([*jax.tree.leaves(model.network)] for model in (old, new))
        if part == "model":
            assert largest_difference(old, new) == 0
    config.model.codebook_size = 32
    with pytest.raises(InputError, match="config.start_from.tokenizer = .* another network"):
        run_stages(config, epath.Path(tmp_path / "other"))


@pytest.mark.slow
def test_training_reads_the_lpips_directory(tmp_path):
    network = jax.jit(lambda: LPIPS(LPIPSConfig(channels=(8, 8, 8, 8, 8)), jax.random.key(0)))()
    loading.Auxiliary(network).save(tmp_path / "lpips")
    config = tiny.tokenizer()
    config.steps, config.data.image_size = 2, 16
    config.evaluation.reference = ""
    config.loss.update(perceptual_weight=1.0, lpips=str(tmp_path / "lpips"), lpips_dropout=True)
    run_stages(config, epath.Path(tmp_path / "run"))
    lines = (tmp_path / "run" / "training.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert len(logged) == 2 and all(0 < line["perceptual_loss"] < 10 for line in logged)

    config.loss.lpips = str(tmp_path / "run" / "model")
    with pytest.raises(InputError, match="holds a tokenizer, expected lpips"):
        run_stages(config, epath.Path(tmp_path / "other"))

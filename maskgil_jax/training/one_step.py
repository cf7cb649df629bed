"""One-step distillation: a student that draws all tokens of an image in one pass (Di[M]O).

The student reads masks and random codes, by which images differ, and draws a code at every
position. Some of these are masked again, and two networks predict them: the teacher under guidance,
and an auxiliary network that learns to predict what the student draws. Where both agree, whatever
is masked, the student draws as the teacher does in many steps. The gradient of their divergence
with respect to the auxiliary network's logits is the student's, with respect to its own.

Letters: B batch, h w grid, L = h * w, n positions of a chunk, D width, F digits of a code.

Source: Zhu et al. 2025 (arXiv 2503.15457), algorithm 1; yuanzhi-zhu/DiMO, train_DIMO_MaskGit.py,
with its forward KL divergence. It adds noise to the student's embeddings, and freezes all tables;
here a code that is drawn is noise enough, and tables learn.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from maskgil_jax.conditioning import base
from maskgil_jax.data.images.buckets import Size
from maskgil_jax.decoding import choosing, token_sampling
from maskgil_jax.models.token_models import factors, layers
from maskgil_jax.models.token_models.conditions import TokenModel
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import distillation, generator_step, objectives, optimizer
from maskgil_jax.training.generator_step import Frozen
from maskgil_jax.training.train_state import Batch, Metrics, TrainState, conclude

STUDENT, AUXILIARY = "student", "auxiliary"


def is_wanted(config: ConfigDict) -> bool:
    """Whether `config` distills into one step."""
    return config.loss.get("one_step", 0.0) > 0


def decoding(config: ConfigDict) -> dict[str, Any]:
    """The options of decoding that the student was trained for."""
    return {"steps": 1, "random_start": config.loss.one_step}


def check(config: ConfigDict) -> None:
    """Raise InputError where a field would be ignored, or nothing guides the teacher.

    Args:
      config: of a generator that wants one step; all else was checked.
    """
    field = f"config.loss.one_step = {config.loss.one_step}"
    if not distillation.is_wanted(config):
        raise InputError(
            f"{field} is of a student, but config.loss.distill_guidance = 1: expected the scale "
            "under which its teacher, config.start_from.generator, is guided"
        )
    given = {
        "samples.steps": (config.samples.steps, 1),
        "model.dropout": (config.model.dropout, 0.0),
        "loss.unmasked_weight": (config.loss.unmasked_weight, 0.0),
    }
    if wrong := [name for name, (value, expected) in given.items() if value != expected]:
        raise InputError(
            f"{field} trains what draws all tokens at once, on what it draws: set "
            + " and ".join(f"--config.{name}={given[name][1]:g}" for name in wrong)
        )


def init(config: ConfigDict, network: Any, start_from: Any) -> TrainState:
    """Student and auxiliary network, both as the teacher."""
    student = generator_step.init(config, network, start_from)
    model = {STUDENT: student.model, AUXILIARY: jax.tree.map(jnp.copy, student.model)}
    rule, _ = optimizer.make(**config.optimizer, steps=config.steps)
    return TrainState(
        step=student.step,
        model=model,
        optimizer={name: rule.init(of_name) for name, of_name in model.items()},
        ema=student.ema,
    )


def model_flops(config: ConfigDict, network: Any) -> Callable[[Size], int] | None:
    """As generator_step.model_flops, of both networks that are trained."""
    count = generator_step.model_flops(config, network)
    return None if count is None else lambda grid: 2 * count(grid)


def step(
    state: TrainState, frozen: Frozen, batch: Batch, config: ConfigDict
) -> tuple[TrainState, Metrics]:
    """One update of both networks, on images that the student draws of the batch's conditions."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    student, teacher = state.model[STUDENT], cast(distillation.Teacher, frozen.teacher)
    examples = _examples(student, frozen, batch, key, config)

    def gradients(micro_batch: Batch, index: jax.Array) -> Any:
        of_both = functools.partial(loss, teacher=teacher, chunk=config.loss.chunk)
        return jax.value_and_grad(of_both, has_aux=True)(state.model, micro_batch), None

    ((total, sums), grads), _ = optimizer.accumulate(gradients, examples, config.accumulate_steps)
    model, moments = {}, {}
    for name, network in state.model.items():
        model[name], moments[name], learning_rate = optimizer.update(
            config, state.step, network, state.optimizer[name], grads[name]
        )
    masked = examples["masked"]
    metrics = {
        "loss": total,
        **sums,
        "masked_share": masked.mean(),
        "gradient_norm": optax.tree.norm(grads),
        "parameter_norm": optax.tree.norm(student),
        "learning_rate": learning_rate,
    }
    after = TrainState(state.step + 1, model, moments, state.ema)
    return conclude(
        state, after, metrics, ema_decay=config.ema_decay, network=lambda model: model[STUDENT]
    )


def _examples(
    student: Any, frozen: Frozen, batch: Batch, key: jax.Array, config: ConfigDict
) -> dict[str, Any]:
    """What `loss` is of; of the batch the conditions count, and of its codes the shape alone."""
    mask_key, drop_key, order_key, codes_key, draw_key = jax.random.split(key, 5)
    codes_Bhw = generator_step.codes_of(batch, frozen.tokenizer)
    condition = base.condition_of(batch, frozen.encoder)
    examples = generator_step.examples_of(
        student, codes_Bhw, condition, mask_key, drop_key, config.loss
    )
    B, shape = codes_Bhw.shape[0], codes_Bhw.shape
    L, network = codes_Bhw[0].size, student.config
    start_BL = choosing.with_random_codes(
        jnp.full((B, L), network.mask_id, jnp.int32),
        jnp.ones((B, L), bool),
        config.loss.one_step,
        jax.random.uniform(order_key, (B, L)),
        jax.random.randint(codes_key, (B, L), 0, network.codebook_size),
    )
    uniform_BLF = jax.random.uniform(draw_key, (B, L, len(network.vocabularies)))
    return examples | {"codes": start_BL.reshape(shape), "uniform": uniform_BLF}


def loss(
    networks: dict[str, Any], examples: Batch, *, teacher: distillation.Teacher, chunk: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum of both losses, whose gradient is each network's own, and sums for the metrics.

    Args:
      networks: student and auxiliary network.
      examples: `codes` (int32, what the student reads), `masked` (bool, what is masked of what it
        draws) and `weight` (float32, 0 but there), each [B, h, w]; the `condition`; and `uniform`
        [B, L, F] in [0, 1), which codes are drawn by.
      teacher: predicts what is masked under guidance.
      chunk: positions whose logits exist at a time.

    Returns:
      The loss: the auxiliary network's cross-entropy plus the `divergence`; `divergence` (KL of the
      auxiliary network from the teacher) and `student_entropy` of a token, in nats; each float32
      [], of masked tokens and summed by weight.
    """
    student, auxiliary = networks[STUDENT], networks[AUXILIARY]
    condition = examples["condition"]
    x_BLD = student.backbone(examples["codes"], condition, None)
    codes_BL = _drawn(student, x_BLD, examples["uniform"], chunk)
    masked_Bhw = examples["masked"]
    codes_Bhw = codes_BL.reshape(masked_Bhw.shape)
    inputs_Bhw = jnp.where(masked_Bhw, student.config.mask_id, codes_Bhw)
    features_BLD = auxiliary.backbone(inputs_Bhw, condition, None)
    taught_BLD = distillation.guided_features(teacher, inputs_Bhw, masked_Bhw, condition)
    return objectives.summed_in_chunks(
        functools.partial(_loss_of_positions, student.config.vocabularies),
        chunk,
        [layers.head_of(network) for network in (student, auxiliary, teacher.network)],
        jnp.concatenate([x_BLD, features_BLD], axis=-1),
        *(codes_BL, _positions(codes_BL), examples["weight"].reshape(codes_BL.shape), taught_BLD),
    )


def _positions(codes_BL: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(codes_BL.shape[1]), codes_BL.shape)


def _drawn(network: Any, x_BLD: jax.Array, uniform_BLF: jax.Array, chunk: int) -> jax.Array:
    """Codes that a network draws at all positions from its last layer's outputs, int32 [B, L]."""
    sizes, codebook_size = network.config.vocabularies, network.config.codebook_size

    def draw(x_BnD: jax.Array, uniform_BnF: jax.Array, positions_Bn: jax.Array) -> jax.Array:
        logits_BnV = network.classify(network.normed(x_BnD), positions_Bn)[..., :codebook_size]
        return token_sampling.code(uniform_BnF, logits_BnV, sizes)[0]

    arrays = x_BLD, uniform_BLF, _positions(x_BLD[..., 0])
    return objectives.in_chunks(draw, chunk, *jax.lax.stop_gradient(arrays))


def _loss_of_positions(
    vocabularies: tuple[int, ...],
    heads: list[TokenModel],
    both_BnD: jax.Array,
    codes_Bn: jax.Array,
    positions_Bn: jax.Array,
    weight_Bn: jax.Array,
    taught_BnD: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`loss` of some positions.

    `heads` are of the student, the auxiliary network and the teacher; `both_BnD` are the outputs of
    the first two side by side, and the third's are `taught_BnD`.
    """
    student, auxiliary, teacher = heads
    x_BnD, features_BnD = jnp.split(both_BnD, 2, axis=-1)
    logits = (
        student.classify(student.normed(x_BnD), positions_Bn),
        auxiliary.classify(auxiliary.normed(features_BnD), positions_Bn),
        jax.lax.stop_gradient(teacher.classify(taught_BnD, positions_Bn)),
    )
    total, divergence, entropy = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for digit_Bn, of_student, of_auxiliary, of_teacher in zip(
        factors.digits(codes_Bn, vocabularies),
        *(factors.split(x, vocabularies) for x in logits),
        strict=True,
    ):
        losses_Bn, _ = objectives.cross_entropy(of_auxiliary, digit_Bn, 0.0)
        total += (losses_Bn * weight_Bn).sum()
        target, known = jax.nn.softmax(of_teacher), jax.lax.stop_gradient(of_auxiliary)
        divergence_Bn = optax.losses.kl_divergence(jax.nn.log_softmax(known), target)
        # Of no size, and of this gradient: what the divergence's would be by `known`.
        own = of_student - jax.lax.stop_gradient(of_student)
        own_Bn = ((jax.nn.softmax(known) - target) * own).sum(axis=-1)
        total += ((divergence_Bn + own_Bn) * weight_Bn).sum()
        divergence += (divergence_Bn * weight_Bn).sum()
        entropy += (
            optax.losses.softmax_cross_entropy(of_student, jax.nn.softmax(of_student)) * weight_Bn
        ).sum()
    return total, {"divergence": divergence, "student_entropy": entropy}

"""The loss of token models: cross-entropy of codes, summed by weight.

Letters: B batch, h w grid, L = h * w, n positions of a chunk, D width, V classes of a digit.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from maskgil_jax.models.token_models import factors, layers
from maskgil_jax.models.token_models.conditions import TokenModel
from maskgil_jax.training import distillation, objectives

Examples = dict[str, Any]


def weighted_loss(
    model: Any,
    examples: Examples,
    key: jax.Array | None,
    *,
    label_smoothing: float,
    chunk: int,
    teacher: distillation.Teacher | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy summed over tokens by weight, and sums for the metrics.

    Sums, so that micro-batches add up to exactly the whole batch.

    Args:
      model: a TokenModel, masked or causal.
      examples: `codes`, `masked` (bool, to be predicted) and `weight` (float32), each [B, h, w],
        the `condition`, and for a model with a causal prefix `prefix` (int32 [B]), if there is any:
        its tokens are predicted too, but not hidden.
      key: of dropout; None is eval mode.
      label_smoothing: share of the mass of a target that is spread over all codes.
      chunk: positions whose logits exist at a time.
      teacher: of a masked model; its predictions are the targets instead of the codes.

    Returns:
      The loss, and `correct` (masked tokens predicted right) and `output_norm`; float32 [].
    """
    inputs_Bhw, prefix = examples["codes"], {}
    if not model.config.causal:
        hidden_Bhw = examples["masked"]
        if "prefix" in examples:
            prefix = {"prefix_B": examples["prefix"]}
            hidden_Bhw &= ~model.in_prefix(hidden_Bhw.shape, **prefix)
        inputs_Bhw = jnp.where(hidden_Bhw, model.config.mask_id, inputs_Bhw)
    x_BLD = model.backbone(inputs_Bhw, examples["condition"], key, **prefix)
    B, L = x_BLD.shape[:2]
    codes_BL, masked_BL, weight_BL = (
        examples[name].reshape(B, L) for name in ("codes", "masked", "weight")
    )
    heads, taught = [layers.head_of(model)], []
    if teacher is not None:
        heads.append(layers.head_of(teacher.network))
        taught.append(
            distillation.guided_features(
                teacher, inputs_Bhw, examples["masked"], examples["condition"]
            )
        )
    loss, correct = objectives.summed_in_chunks(
        functools.partial(_loss_of_positions, model.config.vocabularies, label_smoothing),
        chunk,
        heads,
        x_BLD,
        *(codes_BL, jnp.broadcast_to(jnp.arange(L), (B, L)), masked_BL, weight_BL),
        *taught,
    )
    return loss, {
        "correct": correct,
        # Norm of the last layer's output, before the final norm: the paper's figure 5c.
        "output_norm": jnp.linalg.norm(x_BLD.astype(jnp.float32), axis=-1).sum(),
    }


def _loss_of_positions(
    vocabularies: tuple[int, ...],
    label_smoothing: float,
    heads: list[TokenModel],
    x_BnD: jax.Array,
    codes_Bn: jax.Array,
    positions_Bn: jax.Array,
    masked_Bn: jax.Array,
    weight_Bn: jax.Array,
    *taught_BnD: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The weighted loss of some positions, and how many masked ones are right in all digits.

    `heads` are the model's and, where there is a teacher, the teacher's, of features `taught_BnD`.
    """
    head, *teachers = heads
    logits_BnV = head.classify(head.normed(x_BnD), positions_Bn)
    taught_BnV = [
        jax.lax.stop_gradient(teacher.classify(x, positions_Bn))
        for teacher, x in zip(teachers, taught_BnD, strict=True)
    ]
    loss, correct_Bn = jnp.zeros(()), masked_Bn
    for logits, digit_Bn, *taught in zip(
        factors.split(logits_BnV, vocabularies),
        factors.digits(codes_Bn, vocabularies),
        *(factors.split(x, vocabularies) for x in taught_BnV),
        strict=True,
    ):
        losses_Bn, right_Bn = objectives.cross_entropy(logits, digit_Bn, label_smoothing)
        for of_teacher in taught:
            losses_Bn = optax.losses.softmax_cross_entropy(logits, jax.nn.softmax(of_teacher))
        loss += (losses_Bn * weight_Bn).sum()
        correct_Bn &= right_Bn
    return loss, correct_Bn.sum().astype(jnp.float32)

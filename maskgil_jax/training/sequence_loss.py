"""The loss of a model of text and image tokens in one sequence, as Lumina-mGPT is tuned.

The whole answer is predicted, after the prompt: what begins the image, its codes, the ends of its
lines, its end and that of the turn.

Letters: B batch, h w grid, T tokens of the prompt and of what begins the image, S tokens of the
sequence, A of the answer, n of a chunk, D width, V ids of the vocabulary.
Source: Alpha-VLLM/Lumina-mGPT, model/modeling_xllmx_chameleon.py; what is dropped:
Alpha-VLLM/Lumina-mGPT-2.0.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from maskgil_jax.models.token_models import layers, lumina_sequence
from maskgil_jax.models.token_models.conditions import Text
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.training import objectives

Examples = dict[str, Any]
CLOSING = (lumina_sequence.END_OF_IMAGE, lumina_sequence.END_OF_TURN)


def sequences_of(
    model: Llama,
    codes_Bhw: jax.Array,
    condition: Text,
    drop_key: jax.Array,
    settings: ConfigDict,
) -> Examples:
    """What `sequence_loss` is of: ids, which of them are predicted, weights.

    All tokens that are predicted weigh the same. An image whose prompt is dropped is a sequence of
    its own, from its begin to its end.

    Args:
      model: with a vocabulary.
      codes_Bhw: int32.
      condition: prompts, and what begins their images.
      drop_key: of the prompts that are dropped.
      settings: config.loss.
    """
    B, height, width = codes_Bhw.shape
    drop_B = jax.random.bernoulli(drop_key, settings.condition_dropout, (B,))
    prompt_ids_BT, prompt_mask_BT = model.drop_condition(condition, drop_B)
    codes_BS = model.in_order(codes_Bhw.reshape(B, -1), height, width)
    closing_B2 = jnp.broadcast_to(jnp.array(CLOSING, jnp.int32), (B, 2))
    answer = (lumina_sequence.FIRST_CODE + codes_BS, closing_B2)
    no_turn_BS = jnp.ones((B, codes_BS.shape[1] + 1), bool)
    ids_BS = jnp.concatenate([prompt_ids_BT, *answer], axis=1)
    mask_BS = jnp.concatenate([prompt_mask_BT, no_turn_BS, ~drop_B[:, None]], axis=1)
    A = lumina_sequence.OPENING + codes_BS.shape[1] + len(CLOSING)
    predicted_BA = (mask_BS[:, 1:] & mask_BS[:, :-1])[:, -A:]
    return {
        "ids": ids_BS,
        "mask": mask_BS,
        "masked": predicted_BA,
        "weight": predicted_BA / jnp.maximum(predicted_BA.sum(), 1.0),
    }


def sequence_loss(
    model: Llama,
    examples: Examples,
    key: jax.Array | None,
    *,
    z_loss_weight: float,
    chunk: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of the answers' ids over the whole vocabulary, and their z-loss.

    Sums, so that micro-batches add up to exactly the whole batch.

    Args:
      model: with a vocabulary.
      examples: as `sequences_of` makes them.
      key: of dropout; None is eval mode.
      z_loss_weight: of the squared logarithm of the softmax's denominator, which keeps it near 0.
      chunk: positions whose logits exist at a time.

    Returns:
      The loss, and `correct` (ids predicted right) and `output_norm`; float32 [].
    """
    ids_BS, mask_BS = examples["ids"], examples["mask"]
    A = examples["masked"].shape[1]
    x_BAD = model.sequence(Text(ids_BS[:, :-1], mask_BS[:, :-1]), key)[:, -A:]
    whole = [(0, 0), (0, -A % chunk)]  # chunks; what is added weighs nothing
    targets_BA, predicted_BA, weight_BA = (
        jnp.pad(x, whole) for x in (ids_BS[:, -A:], examples["masked"], examples["weight"])
    )
    loss, correct = objectives.summed_in_chunks(
        functools.partial(_loss_of_positions, z_loss_weight),
        chunk,
        layers.head_of(model),
        jnp.pad(x_BAD, [*whole, (0, 0)]),
        *(targets_BA, predicted_BA, weight_BA),
    )
    norms_BA = jnp.linalg.norm(x_BAD.astype(jnp.float32), axis=-1)
    return loss, {"correct": correct, "output_norm": norms_BA.sum()}


def _loss_of_positions(
    z_loss_weight: float,
    head: Llama,
    x_BnD: jax.Array,
    ids_Bn: jax.Array,
    predicted_Bn: jax.Array,
    weight_Bn: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The weighted loss of some positions, and how many predicted ids are right."""
    logits_BnV = head.classify_ids(head.normed(x_BnD))
    losses_Bn, right_Bn = objectives.cross_entropy(logits_BnV, ids_Bn, 0.0)
    losses_Bn += z_loss_weight * objectives.log_normalizer(logits_BnV) ** 2
    correct = (right_Bn & predicted_Bn).sum().astype(jnp.float32)
    return (losses_Bn * weight_Bn).sum(), correct

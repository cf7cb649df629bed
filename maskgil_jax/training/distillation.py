"""Guidance that the network learns itself, so that a step of decoding takes one pass, not two.

The student begins as its teacher, the generator that training starts from. It learns the
distribution of each masked token that the teacher gives under classifier-free guidance, at the
scale of the step of decoding at which as many tokens are masked.

Letters: B batch, h w grid, L = h * w, D width, S steps of decoding.

Source: Meng et al. 2023 (arXiv 2210.03142), section 3.1, stage one; there of diffusion models.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from maskgil_jax.decoding import masked_plan
from maskgil_jax.decoding.guidance import guided, with_negative
from maskgil_jax.models.token_models.conditions import Condition
from maskgil_jax.pretrained import presets
from maskgil_jax.runtime.errors import InputError

# What a student is drawn with unless it is told otherwise: it has learned its guidance.
DECODING = {"guidance": 1.0}


class Teacher(NamedTuple):
    """A frozen network, and how strongly it is guided.

    Attributes:
      network: of the student's kind and size.
      shares_S: masked share of an image at the steps of decoding, the last step first, float32.
      scales_S: scale s of u + s (c - u) at these steps, float32.
    """

    network: Any
    shares_S: np.ndarray
    scales_S: np.ndarray


def is_wanted(config: ConfigDict) -> bool:
    """Whether `config` distills guidance."""
    return config.loss.get("distill_guidance", 1.0) != 1


def teacher_of(config: ConfigDict, network: Any, options: dict[str, Any]) -> Teacher:
    """The teacher that `config` names.

    Args:
      config: that wants one, and was checked.
      network: its weights, in the student's structure.
      options: of the student's decoding, whose ramp and steps the teacher's guidance follows.
    """
    return Teacher(network, *_guidance(config, network.config, options))


def _guidance(
    config: ConfigDict, network: Any, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """`shares_S` and `scales_S` of a Teacher.

    Raises:
      ValueError: scales that are no numbers of float32.
    """
    L = network.grid[0] * network.grid[1]
    of_teacher = options | {"guidance_form": "scale", "guidance": config.loss.distill_guidance}
    plan, numbers = masked_plan.plan(L, **of_teacher)
    shares_S = np.array(plan.masked, np.float32) / L
    return shares_S[::-1], numbers.guidance_S[::-1]


def check(config: ConfigDict, network: Any, options: dict[str, Any]) -> None:
    """Raise InputError where no guidance can be learned, or where it would act twice.

    Args:
      config: of a generator.
      network: config of its network.
      options: of its decoding, which were checked.
    """
    field = f"config.loss.distill_guidance = {config.loss.distill_guidance}"
    if network.causal or getattr(network, "causal_prefix", False):
        raise InputError(f"{field} is of masked models, and this one predicts tokens one by one")
    if presets.is_unconditional(config.model):
        raise InputError(f"{field}, but there is no condition by which anything is guided")
    if not network.has_null_condition:
        raise InputError(f"{field}, but preset {config.model.preset} has no null condition")
    if not config.start_from.generator:
        raise InputError(
            f"{field}, but config.start_from.generator is empty: expected the directory of the "
            "generator whose guided predictions are learned"
        )
    no_guidance = 0.0 if config.samples.guidance_form == "weight" else 1.0
    given = {
        "samples.guidance": (config.samples.guidance, no_guidance),
        "loss.label_smoothing": (config.loss.label_smoothing, 0.0),
    }
    if wrong := [name for name, (value, expected) in given.items() if value != expected]:
        raise InputError(
            f"{field} teaches the teacher's distribution under guidance, which nothing should "
            "smooth, and which needs no more guidance: set "
            + " and ".join(f"--config.{name}={given[name][1]:g}" for name in wrong)
        )
    try:
        _guidance(config, network, options)
    except ValueError as error:
        raise InputError(f"{field}: {error}") from None


def guided_features(
    teacher: Teacher, inputs_Bhw: jax.Array, masked_Bhw: jax.Array, condition: Condition
) -> jax.Array:
    """What the teacher's head predicts from under guidance: float [B, L, D].

    Args:
      teacher: see there.
      inputs_Bhw: int32, codes and masks.
      masked_Bhw: bool, which of them are masks.
      condition: of each image; of the null condition, guidance changes nothing.
    """
    network = teacher.network
    both = with_negative(network, condition, None)
    x_2BLD = network.normed(network.backbone(jnp.concatenate([inputs_Bhw, inputs_Bhw]), both, None))
    share_B = masked_Bhw.mean(axis=(1, 2), dtype=jnp.float32)
    scale_B = jnp.interp(share_B, teacher.shares_S, teacher.scales_S)
    return guided(x_2BLD, scale_B[:, None, None])

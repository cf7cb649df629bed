"""All decoding steps of the masked model in one jitted function.

Letters: B batch, L = height * width tokens, V codes.
"""

import functools

import jax
import jax.numpy as jnp

from maskgil_jax.decoding import masked
from maskgil_jax.models.llama import Llama


@functools.partial(jax.jit, static_argnames="plan")
def sample_codes(
    network: Llama,
    condition_B: jax.Array,
    key: jax.Array,
    start: jax.Array | int,
    *,
    plan: masked.Plan,
) -> jax.Array:
    """Sample with a ready-made plan, int32 [B, h, w]; see Generator.sample.

    The draws of image i are keyed by i, those of a step by the step.
    """
    config = network.config
    (height, width), B = config.grid, condition_B.shape[0]
    keys_B = jax.vmap(lambda i: jax.random.fold_in(key, i))(start + jnp.arange(B))
    null_B = jnp.full_like(condition_B, config.num_classes)

    def step_keys(step: jax.Array, use: int) -> jax.Array:
        return jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(k, step), use))(keys_B)

    def logits_fn(codes_BL: jax.Array, guidance: jax.Array) -> jax.Array:
        codes_Bhw = codes_BL.reshape(B, height, width)
        if plan.guided:
            both = network(
                jnp.concatenate([codes_Bhw, codes_Bhw]), jnp.concatenate([condition_B, null_B])
            )
            c_BLV, u_BLV = jnp.split(both, 2)
            logits_BLV = u_BLV + guidance * (c_BLV - u_BLV)
        else:
            logits_BLV = network(codes_Bhw, condition_B)
        # A mask is never drawn (the released FID_sample.py drops its column as well).
        return logits_BLV[..., : config.codebook_size]

    codes_BL = masked.decode(
        logits_fn,
        jnp.full((B, height * width), config.mask_id, jnp.int32),
        mask_id=config.mask_id,
        plan=plan,
        draw=lambda step, logits_BLV: jax.vmap(jax.random.categorical)(
            step_keys(step, 0), logits_BLV
        ).astype(jnp.int32),
        gumbel=lambda step: jax.vmap(lambda k: jax.random.gumbel(k, (height * width,)))(
            step_keys(step, 1)
        ),
    )
    return codes_BL.reshape(B, height, width)

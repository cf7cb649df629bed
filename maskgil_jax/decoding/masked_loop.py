"""All decoding steps of a masked model in one jitted function.

Letters: B batch, L = height * width tokens, n of them, V classes of the head, S steps, F digits of
a code.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from maskgil_jax.decoding import masked, token_sampling
from maskgil_jax.models.token_models import orders
from maskgil_jax.models.token_models.conditions import Condition, TokenModel, with_negative
from maskgil_jax.models.token_models.layers import cast_once


@functools.partial(jax.jit, static_argnames="plan")
def sample_codes(
    network: TokenModel,
    condition: Condition,
    codes_Bhw: jax.Array,
    counts_SB: jax.Array,
    key: jax.Array,
    start: jax.Array | int,
    negative: Condition | None = None,
    *,
    plan: masked.Plan,
) -> jax.Array:
    """Fill the hidden codes by a ready-made plan, int32 [B, h, w]; see Generator.sample.

    The draws of image i are keyed by i, those of a step by the step. Where logits are not finite,
    the code is as draws.with_step says.
    """
    config, network = network.config, cast_once(network)
    B, height, width = codes_Bhw.shape
    L = height * width
    keys_B = jax.vmap(lambda i: jax.random.fold_in(key, i))(start + jnp.arange(B))
    both = condition
    if plan.guided:
        both = with_negative(network, condition, negative)

    def noise(
        step: jax.Array, use: int, sample: Callable[..., jax.Array], *shape: int
    ) -> jax.Array:
        return jax.vmap(
            lambda k: sample(jax.random.fold_in(jax.random.fold_in(k, step), use), shape)
        )(keys_B)

    def predict(
        codes_BL: jax.Array, positions_Bn: jax.Array, guidance: jax.Array | None
    ) -> jax.Array:
        codes_Bhw = codes_BL.reshape(B, height, width)
        if guidance is None:
            x_BLD = network.backbone(codes_Bhw, condition)
            x_BnD = network.normed(_rows(x_BLD, positions_Bn))
        else:
            x_BLD = network.backbone(jnp.concatenate([codes_Bhw, codes_Bhw]), both)
            x_BnD = network.normed(_rows(x_BLD, jnp.concatenate([positions_Bn, positions_Bn])))
            # The head is affine and the weights of c and u add up to 1: guidance may come first.
            c_BnD, u_BnD = jnp.split(x_BnD.astype(jnp.float32), 2)
            x_BnD = (u_BnD + guidance * (c_BnD - u_BnD)).astype(x_BnD.dtype)
        # A mask is never drawn (the released FID_sample.py drops its column as well).
        return network.classify(x_BnD, positions_Bn)[..., : config.codebook_size]

    def draw(
        step: jax.Array, logits_BnV: jax.Array, positions_Bn: jax.Array, divisor: jax.Array | float
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        sizes = config.vocabularies
        uniform_BLF = noise(step, 0, jax.random.uniform, L, len(sizes))
        uniform_BnF = _rows(uniform_BLF, positions_Bn)
        codes_Bn, log_p_Bn, logit_Bn = token_sampling.code(
            uniform_BnF, logits_BnV, sizes, divisor=divisor, top_k=plan.top_k, top_p=plan.top_p
        )
        return token_sampling.with_step(codes_Bn, step), log_p_Bn, logit_Bn

    # Halton's order begins anywhere, so that not all images begin at the same cell.
    rank_L = jnp.argsort(jnp.asarray(orders.halton(height, width)))
    offset_B1 = jax.vmap(lambda k: jax.random.randint(k, (1,), 0, L))(keys_B)
    codes_BL = masked.decode(
        predict,
        codes_Bhw.reshape(B, L),
        counts_SB,
        mask_id=config.mask_id,
        plan=plan,
        draw=draw,
        gumbel=lambda step: noise(step, 1, jax.random.gumbel, L),
        rank_BL=(rank_L + offset_B1) % L,
    )
    return codes_BL.reshape(B, height, width)


def _rows(x_BLD: jax.Array, positions_Bn: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BLD, positions_Bn[..., None], axis=1)

"""From latents to codes and back: nearest rows of a codebook, or the signs of the latents.

Plain functions in float32 at the highest matmul precision: rounding would change codes. What holds
a number for each pair of position and code is computed in blocks of codes.

Letters: B batch, h w grid, N = B h w positions, C dimension of a latent, V codes.
"""

import jax
import jax.numpy as jnp

TEMPERATURE = 0.01  # of the softmax in the entropy terms, in all official recipes
FAR = 1e30  # distance of the rows that fill up the last block


def normalize(x: jax.Array) -> jax.Array:
    """Divide by the l2 norm of the last axis, at least 1e-12 (torch F.normalize)."""
    # The norm's gradient at 0 is nan without the inner where.
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0)) * (square > 0)
    return x / jnp.maximum(norm, 1e-12)


def nearest(z_BhwC: jax.Array, table_VC: jax.Array, block: int) -> jax.Array:
    """Index of the nearest row of the table, int32 [B, h, w]; ties go to the first.

    Args:
      z_BhwC: latents.
      table_VC: codebook.
      block: most distances that are held at once.
    """
    z_NC = z_BhwC.reshape(-1, z_BhwC.shape[-1])
    rows_KbC, square_Kb = _blocks(table_VC, len(z_NC), block)

    def search(best: tuple[jax.Array, jax.Array], part: tuple) -> tuple:
        rows_bC, square_b, first = part
        distance_Nb = square_b - 2 * _dot(z_NC, rows_bC)
        index_N = jnp.argmin(distance_Nb, axis=-1)
        distance_N = jnp.take_along_axis(distance_Nb, index_N[:, None], axis=-1)[:, 0]
        closer = distance_N < best[0]
        index_N = jnp.where(closer, first + index_N.astype(jnp.int32), best[1])
        return (jnp.where(closer, distance_N, best[0]), index_N), None

    first_K = jnp.arange(len(rows_KbC), dtype=jnp.int32) * rows_KbC.shape[1]
    start = jnp.full(len(z_NC), jnp.inf), jnp.zeros(len(z_NC), jnp.int32)
    (_, index_N), _ = jax.lax.scan(search, start, (rows_KbC, square_Kb, first_K))
    return index_N.reshape(z_BhwC.shape[:-1])


def entropies(z_BhwC: jax.Array, table_VC: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """Entropies of the soft assignment softmax(-distance^2 / TEMPERATURE), in nats.

    Args:
      z_BhwC: latents.
      table_VC: codebook.
      block: most assignments that are held at once, in the backward pass too.

    Returns:
      Mean entropy of a position's assignment, and entropy of the mean assignment. Their difference
      is the entropy term of the losses: sharp assignments, evenly spread over the codebook.

    Source: FoundationVision/LlamaGen, vq_model.py, `compute_entropy_loss`.
    """
    z_NC = z_BhwC.reshape(-1, z_BhwC.shape[-1])
    square_N = jnp.sum(z_NC**2, axis=-1)
    parts = _blocks(table_VC, len(z_NC), block)

    def logits(rows_bC: jax.Array, square_b: jax.Array) -> jax.Array:
        distance_Nb = square_N[:, None] + square_b - 2 * _dot(z_NC, rows_bC)
        return -distance_Nb / TEMPERATURE

    @jax.checkpoint
    def normalizer(log_z_N: jax.Array, part: tuple) -> tuple[jax.Array, None]:
        return jnp.logaddexp(log_z_N, jax.nn.logsumexp(logits(*part), axis=-1)), None

    log_z_N, _ = jax.lax.scan(normalizer, jnp.full(len(z_NC), -FAR), parts)

    @jax.checkpoint
    def assign(entropy: jax.Array, part: tuple) -> tuple[jax.Array, jax.Array]:
        log_p_Nb = logits(*part) - log_z_N[:, None]
        p_Nb = jnp.exp(log_p_Nb)
        return entropy - jnp.sum(p_Nb * log_p_Nb) / len(z_NC), jnp.mean(p_Nb, axis=0)

    of_positions, mean_Kb = jax.lax.scan(assign, jnp.zeros(()), parts)
    return of_positions, _entropy_of_mean(mean_Kb)


def sign_codes(z_BhwC: jax.Array) -> jax.Array:
    """Lookup-free codes, int32 [B, h, w]: bit i is set where channel i is above 0.

    Source: TencentARC/SEED-Voken, lookup_free_quantize.py (whose comments say big-endian; channel 0
    is the least significant bit).
    """
    weights_C = 2 ** jnp.arange(z_BhwC.shape[-1], dtype=jnp.int32)
    return jnp.sum((z_BhwC > 0) * weights_C, axis=-1, dtype=jnp.int32)


def signs(codes_Bhw: jax.Array, bits: int) -> jax.Array:
    """Vectors of lookup-free codes, float32 [B, h, w, bits] of -1 and 1."""
    return ((codes_Bhw[..., None] >> jnp.arange(bits)) & 1) * 2.0 - 1.0


def sign_entropies(z_BhwC: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`entropies` over all 2^C sign vectors, without a number for each position and code.

    The assignment of a position is a product over its channels, so that of half of the channels
    times that of the other half; the mean over positions is a product of two [N, 2^(C/2)] matrices.

    Source: TencentARC/SEED-Voken, lookup_free_quantize.py, `entropy_loss`.
    """
    z_NC = z_BhwC.reshape(-1, z_BhwC.shape[-1])
    N, C = z_NC.shape
    log_p = []
    for half_Nc in (z_NC[:, : C // 2], z_NC[:, C // 2 :]):
        bits = half_Nc.shape[1]
        logits = 2 * _dot(half_Nc, signs(jnp.arange(2**bits), bits)) / TEMPERATURE
        log_p.append(jax.nn.log_softmax(logits, axis=-1))
    p = [jnp.exp(x) for x in log_p]
    halves = [-jnp.mean(jnp.sum(a * b, axis=-1)) for a, b in zip(p, log_p, strict=True)]
    mean = jnp.einsum("Na,Nb->ab", *p, precision="highest") / N
    return halves[0] + halves[1], _entropy_of_mean(mean)


def _entropy_of_mean(p: jax.Array) -> jax.Array:
    return -jnp.sum(p * jnp.log(p + 1e-5))  # the official codes' epsilon


def _dot(x_NC: jax.Array, y_VC: jax.Array) -> jax.Array:
    return jnp.einsum("NC,VC->NV", x_NC, y_VC, precision="highest")


def _blocks(table_VC: jax.Array, positions: int, block: int) -> tuple[jax.Array, jax.Array]:
    """The table in parts of equal size [K, b, C], and the squared norms of the rows [K, b].

    Codes are cut rather than positions, since a mesh splits positions already.
    """
    V, C = table_VC.shape
    size = min(V, max(1, block // max(positions, 1)))
    count = -(-V // size)
    fill = count * size - V
    rows = jnp.pad(table_VC, ((0, fill), (0, 0)))
    square = jnp.pad(jnp.sum(table_VC**2, axis=-1), (0, fill), constant_values=FAR)
    return rows.reshape(count, size, C), square.reshape(count, size)

"""One network for both paradigms: the first tokens of an image causal, the others masked.

Each image has a split K, 0 to L. Tokens are in the order of the config, raster or Halton, behind
the condition's. Of one sequence of c + L tokens, no longer than that of a masked model:

- *Before the split* (the condition, and the first K tokens) a token sees those up to itself, and
  its output predicts the token after it: that of the condition's last token predicts the first
  token, that of the K-th nothing. These tokens are never masked.
- *From the split on* a token sees everything, the condition and the prefix too, and its output
  predicts the token itself where that is masked. The input at a position tells the network which
  of the two to do: a code is followed, a masked token is filled in.
- *K = 0* has no prefix, so that the condition sees everything too: the masked model, as it was. For
  K > 0 the condition sees nothing behind itself: its output and its keys reach the prefix, and
  would tell it the tokens that it predicts. This is why it has to stand first in the sequence.
- *K = L* is the causal model: nothing sees the last token. `Llama.as_causal` reads the same weights
  so, with all that decodes a causal model.

The pattern is an array, [B, 1, T, T], which depends on K of each image: one compiled step has any
mixture of them. Positions of RoPE are those of a token's own cell in both tasks, as in both
published models. Attention is by products, which take such a mask on every platform, also of a
sequence in two parts (split_layers.py); by cuDNN where c + L is even, as for all masks
(attention.py); never by the kernel of TPUs, whose masks are of keys alone
(attention_tpu.py).

In decoding, no token before the split depends on one behind it: keys and values of condition and
prefix are computed once and are exact in each masked step, whatever that step reveals. They would
not be for a masked model, or for K = 0, where the prefix sees all that is revealed.

The loss weighs every predicted token alike, in both tasks; its share of images with a prefix and
the distribution of K are the config's (training/objectives.py).

Letters: B batch, L image tokens, c condition tokens, S queries, T keys, D width.
"""

import jax
import jax.numpy as jnp


def visible(
    prefix_B: jax.Array, condition_tokens: int, queries_S: jax.Array, keys_T: jax.Array
) -> jax.Array:
    """Bool [B, 1, S, T], true where a query may see a key.

    Args:
      prefix_B: int32, the split K of each image.
      condition_tokens: c.
      queries_S, keys_T: places in the sequence, 0 .. c + L - 1.
    """
    split_B = jnp.where(prefix_B > 0, condition_tokens + prefix_B, 0)
    behind_BS1 = (queries_S >= split_B[:, None])[..., None]
    return (behind_BS1 | (keys_T <= queries_S[:, None]))[:, None]


def within(prefix_B: jax.Array, tokens: int) -> jax.Array:
    """Bool [B, L], true at the tokens of the prefix; in the order of the config."""
    return jnp.arange(tokens) < prefix_B[:, None]


def predicting(prefix_B: jax.Array, before_BLD: jax.Array, own_BLD: jax.Array) -> jax.Array:
    """The outputs that predict each token, [B, L, D]: of the one before it in the prefix, or own.

    Args:
      prefix_B: int32, the split K of each image.
      before_BLD: of the condition's last token and of all but the last token.
      own_BLD: of all tokens.
    """
    in_prefix_BL1 = within(prefix_B, own_BLD.shape[1])[..., None]
    return jnp.where(in_prefix_BL1, before_BLD, own_BLD)

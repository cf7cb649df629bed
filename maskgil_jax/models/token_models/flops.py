"""How much arithmetic a LLaMA is, counted from its shape: what MFU and scaling laws divide by.

Matrix products only, a multiply and an add as 2 FLOPs, as all counts of the field do (Kaplan et al.
2020, section 2.1; Chowdhery et al. 2022, appendix B). Looking up embeddings, norms, rotations and
softmax are not counted, nor is what is computed twice to save memory: these are FLOPs of the
model, the same on any machine.

Letters: L = h * w image tokens, c condition tokens, T tokens of the sequence, D width, F hidden
units of the MLP, V classes of the head, N layers, C width of features.
"""

from maskgil_jax.models.token_models.llama_config import LlamaConfig


def forward_flops(
    config: LlamaConfig, images: int = 1, condition_tokens: int | None = None
) -> dict[str, int]:
    """FLOPs of the logits of all image tokens, by where they are spent; the total is their sum.

    Args:
      config: of the network.
      images: in the batch.
      condition_tokens: c; None: of the network's config, which has none of a prompt.

    Returns:
      `layers`: products with weights in the layers, and of features with theirs; `attention`:
      queries with keys and weights with values, of all T x T pairs, those that a causal model
      masks too, since they are computed; `head`.
    """
    L, D, F, c = (
        config.grid[0] * config.grid[1],
        config.dim,
        config.ffn_dim,
        config.condition_tokens if condition_tokens is None else condition_tokens,
    )
    if config.order == "lines":
        L += config.grid[0]
    T = c + L - config.causal  # nothing is predicted from the last token of a causal model
    keys = D * config.key_heads * config.head_dim
    weights = 2 * D * D + 2 * keys + 3 * D * F  # queries, output; keys, values; gate, up, down
    features = c * (config.feature_dim * D + D * D) if config.feature_dim else 0
    return {
        "layers": 2 * images * (config.layers * T * weights + features),
        "attention": 2 * images * config.layers * 2 * T * T * D,
        "head": 2 * images * L * D * sum(config.vocabularies),
    }


def training_flops(
    config: LlamaConfig, images: int = 1, condition_tokens: int | None = None
) -> int:
    """FLOPs of a forward and a backward pass: the backward has two products for each forward.

    Arguments as of `forward_flops`. A head of a vocabulary is trained with all its ids.
    """
    each = forward_flops(config, images, condition_tokens)
    if config.vocabulary:
        each["head"] = each["head"] // config.codebook_size * config.vocabulary
    return 3 * sum(each.values())

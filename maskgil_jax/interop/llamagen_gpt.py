"""LlamaGen's causal token models, of classes and of text (autoregressive/models/gpt.py)."""

from maskgil_jax.interop import maskgil_gpt
from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig

CONFIG = LlamaConfig
STATE_DICT_KEYS = ("model", "module", "state_dict", "ema")
ANCHORS = ("output.weight",)
# Beyond its preset.
FIXED = dict(order="raster", condition_rope="zero", feature_norm=False, factors=(), rope_grid=())
IGNORED = (r"freqs_cis$", r"^causal_mask$")


def config(tensors: Tensors, heads: int = 0, grid: tuple[int, int] = (16, 16)) -> LlamaConfig:
    """The network, read off the shapes.

    `heads` are those of the published size of this width unless given, and `grid` is that
    of 256 pixels ((24, 24) for 384, (32, 32) for 512).
    """
    if "cls_embedding.uncond_embedding" in tensors:
        rows, width = tensors["cls_embedding.uncond_embedding"].shape
        condition = dict(num_classes=0, feature_dim=width, condition_tokens=rows)
    else:
        rows = tensors["cls_embedding.embedding_table.weight"].shape[0]
        condition = dict(num_classes=rows - 1)
    return LlamaConfig(
        **maskgil_gpt.shape_of(tensors, heads, grid),
        codebook_size=tensors["output.weight"].shape[0],
        **condition,
        **PRESETS["llamagen"],
    )


def entries(config: LlamaConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network with other switches than LlamaGen has.
    """
    check_same("llamagen-gpt", config, PRESETS["llamagen"] | FIXED)
    D, C, V = config.dim, config.feature_dim, config.codebook_size
    if C:
        null = "cls_embedding.uncond_embedding"
        condition = [
            Entry(null, (config.condition_tokens, C), "null_features"),
            Entry("cls_embedding.cap_proj.fc1.weight", (D, C), "feature_in", axes=(1, 0)),
            Entry("cls_embedding.cap_proj.fc2.weight", (D, D), "feature_out", axes=(1, 0)),
        ]
    else:
        rows = (config.num_classes + 1, D)
        condition = [Entry("cls_embedding.embedding_table.weight", rows, "class_embedding")]
    return [
        *condition,
        Entry("tok_embeddings.weight", (V, D), "code_embedding"),
        *maskgil_gpt.blocks(config),
        Entry("output.weight", (V, D), "head", axes=(1, 0)),
    ]

"""MaskGIL as released (synbol/MaskGIL, Network/gpt.py)."""

import math

from maskgil_jax.interop.engine import Entry, Tensors, check_same, count_layers
from maskgil_jax.models.token_models.layers import swiglu_width
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig

CONFIG = LlamaConfig
STATE_DICT_KEYS = ("model_state_dict", "model", "module", "ema")
ANCHORS = ("output.weight",)
IGNORED = ()
# Beyond its preset; the released RoPE table has a row of zeros for the condition.
FIXED = dict(causal=False, condition_rope="zero")
# Of the sizes whose heads are not 64 wide.
HEADS = {2048: 32, 3200: 32, 4096: 32}


def config(tensors: Tensors, heads: int = 0, grid: tuple[int, int] = (16, 16)) -> LlamaConfig:
    """The network, read off the shapes; `heads` are dim / 64 unless given."""
    codebook_size = tensors["output.weight"].shape[0] - 1
    return LlamaConfig(
        **shape_of(tensors, heads, grid),
        codebook_size=codebook_size,
        num_classes=tensors["tok_emb.weight"].shape[0] - codebook_size - 2,
        **PRESETS["maskgil_released"],
    )


def entries(config: LlamaConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network with other switches than the released code has.
    """
    check_same("maskgil-gpt", config, PRESETS["maskgil_released"] | FIXED)
    rows = config.codebook_size + 1 + config.num_classes + 1
    return [
        Entry("tok_emb.weight", (rows, config.dim), "embedding"),
        *blocks(config),
        Entry("output.weight", (config.output_size, config.dim), "head", axes=(1, 0)),
    ]


def shape_of(tensors: Tensors, heads: int, grid: tuple[int, int]) -> dict:
    """Arguments of LlamaConfig: those that the blocks show, and heads and grid."""
    dim = tensors["output.weight"].shape[1]
    ffn_dim = tensors["layers.0.feed_forward.w1.weight"].shape[0]
    multiple = math.gcd(ffn_dim, 256)
    return dict(
        layers=count_layers(tensors, "layers."),
        dim=dim,
        heads=heads or HEADS.get(dim, max(dim // 64, 1)),
        grid=grid,
        # Whatever gives this width; that of the published sizes divides 256.
        ffn_multiple=multiple if swiglu_width(dim, multiple) == ffn_dim else ffn_dim,
    )


def blocks(config: LlamaConfig) -> list[Entry]:
    """The table of the layers and the final norm; LlamaGen's names, and more for more switches."""
    check_same("this format", config, dict(vocabulary=0))  # text has formats of its own
    D, H, K, F = config.dim, config.heads, config.head_dim, config.ffn_dim
    table: list[Entry] = []
    for i in range(config.layers):
        layer, all_rows = f"layers.{i}", slice(None)
        table += [
            Entry(
                f"{layer}.attention.wqkv.weight",
                (3 * D, D),
                "blocks/qkv",
                split=(3, H, K, D),
                axes=(3, 0, 1, 2),
                slot=(i,),
            ),
            Entry(
                f"{layer}.attention.wo.weight",
                (D, D),
                "blocks/out",
                split=(D, H, K),
                axes=(1, 2, 0),
                slot=(i,),
            ),
            *(
                Entry(
                    f"{layer}.feed_forward.{name}.weight",
                    (F, D),
                    "blocks/gate_up",
                    axes=(1, 0),
                    slot=(i, all_rows, index),
                )
                for index, name in enumerate(("w1", "w3"))
            ),
            Entry(f"{layer}.feed_forward.w2.weight", (D, F), "blocks/down", axes=(1, 0), slot=(i,)),
            *_norms(config, layer, (i,)),
        ]
    table.append(Entry("norm.weight", (D,), "norm/scale"))
    return table


def _norms(config: LlamaConfig, layer: str, slot: tuple[int, ...]) -> list[Entry]:
    D, K = (config.dim,), (config.head_dim,)
    table = []
    if config.qk_norm != "none":
        for theirs, ours in (("q_norm", "query_norm"), ("k_norm", "key_norm")):
            name, path = f"{layer}.attention.{theirs}", f"blocks/{ours}"
            table.append(Entry(f"{name}.weight", K, f"{path}/scale", slot=slot))
            if config.qk_norm == "layer":
                table.append(Entry(f"{name}.bias", K, f"{path}/bias", slot=slot))
    if config.post_norm != "output":
        table += [
            Entry(f"{layer}.attention_norm.weight", D, "blocks/attention_norm/scale", slot=slot),
            Entry(f"{layer}.ffn_norm.weight", D, "blocks/mlp_norm/scale", slot=slot),
        ]
    if config.post_norm != "none":
        post = (("attention_post_norm", "attention_post_norm"), ("ffn_post_norm", "mlp_post_norm"))
        for theirs, ours in post:
            table.append(Entry(f"{layer}.{theirs}.weight", D, f"blocks/{ours}/scale", slot=slot))
    return table

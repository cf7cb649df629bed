"""Halton-MaskGIT's transformer (valeoai/Halton-MaskGIT, Network/transformer.py)."""

from maskgil_jax.interop.engine import Entry, Tensors
from maskgil_jax.interop.maskgit_pytorch import square
from maskgil_jax.models.token_models.halton import SIZES, HaltonConfig

CONFIG = HaltonConfig
STATE_DICT_KEYS = ("model_state_dict", "model", "state_dict")
ANCHORS = ("tok_emb.weight",)
IGNORED = ()


def config(tensors: Tensors, heads: int = 0, grid: tuple[int, int] = (0, 0)) -> HaltonConfig:
    """The network, read off the shapes.

    Heads are those of the published width unless they are given, and the grid is square.
    """
    dim = tensors["tok_emb.weight"].shape[1]
    known = {size["dim"]: size["heads"] for size in SIZES.values()}
    positions = tensors["pos_emb.weight"].shape[0]
    layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.layers.")}
    return HaltonConfig(
        layers=len(layers),
        dim=dim,
        heads=heads or known.get(dim, max(dim // 64, 1)),
        mlp_dim=tensors["transformer.layers.0.ff.w1.weight"].shape[0],
        codebook_size=tensors["tok_emb.weight"].shape[0] - 1,
        num_classes=tensors["cls_emb.weight"].shape[0] - 1,
        grid=grid if any(grid) else square(positions),
        registers=tensors["reg_tokens.weight"].shape[0],
    )


def entries(config: HaltonConfig) -> list[Entry]:
    """The table."""
    D, V = config.dim, config.output_size
    table = [
        Entry("cls_emb.weight", (config.num_classes + 1, D), "class_embedding"),
        Entry("tok_emb.weight", (V, D), "code_embedding"),
        Entry("pos_emb.weight", (config.grid[0] * config.grid[1], D), "position_embedding"),
    ]
    for i in range(config.layers):
        table += _block(config, i)
    return [
        *table,
        Entry("last_norm.norm_final.weight", (D,), "norm/scale"),
        Entry("last_norm.norm_final.bias", (D,), "norm_bias"),
        *_modulation("last_norm.mlp.1", "", D, 2),
        Entry("head.weight", (V, D), "code_embedding"),  # tied, but the file has it twice
        Entry("head.bias", (V,), "head_bias"),
        Entry("reg_tokens.weight", (config.registers, D), "register_embedding"),
    ]


def _block(config: HaltonConfig, i: int) -> list[Entry]:
    D, H, F = config.dim, config.heads, config.mlp_dim
    K = D // H
    name, every = f"transformer.layers.{i}", slice(None)
    table = _modulation(f"{name}.mlp.1", "blocks/", D, 6, slot=(i,))
    table.append(Entry(f"{name}.ln1.weight", (D,), "blocks/attention_norm/scale", slot=(i,)))
    for index, theirs in enumerate(("wq", "wk", "wv")):
        table.append(
            Entry(
                f"{name}.attn.{theirs}.weight",
                (H * K, D),
                "blocks/qkv",
                split=(H, K, D),
                axes=(2, 0, 1),
                slot=(i, every, index),
            )
        )
    table += [
        Entry(
            f"{name}.attn.wo.weight",
            (D, H * K),
            "blocks/out",
            split=(D, H, K),
            axes=(1, 2, 0),
            slot=(i,),
        ),
        Entry(f"{name}.ln2.weight", (D,), "blocks/mlp_norm/scale", slot=(i,)),
        Entry(f"{name}.ff.w2.weight", (D, F), "blocks/down", axes=(1, 0), slot=(i,)),
    ]
    for index, theirs in enumerate(("w1", "w3")):
        table.append(
            Entry(
                f"{name}.ff.{theirs}.weight",
                (F, D),
                "blocks/gate_up",
                axes=(1, 0),
                slot=(i, every, index),
            )
        )
    return table


def _modulation(
    name: str, prefix: str, D: int, count: int, slot: tuple[int, ...] = ()
) -> list[Entry]:
    return [
        Entry(
            f"{name}.weight",
            (count * D, D),
            f"{prefix}modulation",
            split=(count, D, D),
            axes=(2, 0, 1),
            slot=slot,
        ),
        Entry(
            f"{name}.bias", (count * D,), f"{prefix}modulation_bias", split=(count, D), slot=slot
        ),
    ]

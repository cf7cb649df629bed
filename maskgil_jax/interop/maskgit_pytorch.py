"""Besnier's MaskGIT-pytorch, and the same network in MaskGIL's code (Network/transformer.py)."""

import math
from typing import Any

from maskgil_jax.interop.convnet import flat, linear, norm
from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.token_models.bert import BertConfig

CONFIG = BertConfig
STATE_DICT_KEYS = ("model_state_dict", "model", "state_dict")
ANCHORS = ("tok_emb.weight",)
IGNORED = ()


def config(
    tensors: Tensors,
    heads: int = 16,
    classes: int = 1000,
    grid: tuple[int, int] = (0, 0),
) -> BertConfig:
    """The network, read off the shapes.

    Heads and classes are the published ones unless they are given, and the grid is square.
    """
    positions, rows = tensors["bias"].shape
    mlp_dim, dim = tensors["transformer.layers.0.1.fn.net.0.weight"].shape
    layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.layers.")}
    return BertConfig(
        layers=len(layers),
        dim=dim,
        heads=heads,
        mlp_dim=mlp_dim,
        codebook_size=rows - classes - 2,
        num_classes=classes,
        grid=grid if any(grid) else square(positions - 1),
    )


def square(positions: int) -> tuple[int, int]:
    """The sides of a square grid of so many tokens."""
    side = math.isqrt(positions)
    if side * side != positions:
        raise ValueError(f"{positions} positions are no square grid: give arg=grid=HxW")
    return side, side


def entries(config: BertConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network of another style.
    """
    check_same("maskgit-pytorch", config, dict(style="besnier"))
    D, F, rows = config.dim, config.mlp_dim, config.rows
    T = config.grid[0] * config.grid[1] + 1
    return [
        Entry("pos_emb", (1, T, D), "position_embedding", split=(T, D)),
        Entry("bias", (T, rows), "head_bias"),
        Entry("tok_emb.weight", (rows, D), "embedding"),
        *norm("first_layer.0", "embedding_norm", D),
        *linear("first_layer.2", "first/0", D, D),
        *norm("first_layer.4", "first_norm", D),
        *linear("first_layer.6", "first/1", D, D),
        *flat(_block(config, i, D, F) for i in range(config.layers)),
        *norm("last_layer.0", "final_norm", D),
        *linear("last_layer.2", "last", D, D),
        *norm("last_layer.4", "last_norm", D),
    ]


def _block(config: BertConfig, i: int, D: int, F: int) -> list[Entry]:
    H, K, slot = config.heads, config.dim // config.heads, (i,)
    attention, mlp = (f"transformer.layers.{i}.{k}" for k in (0, 1))
    mha = f"{attention}.fn.mha"

    def entry(name: str, shape: tuple[int, ...], path: str, **layout: Any) -> Entry:
        return Entry(name, shape, f"blocks/{path}", slot=slot, **layout)

    return [
        entry(f"{attention}.norm.weight", (D,), "attention_norm/scale"),
        entry(f"{attention}.norm.bias", (D,), "attention_norm/bias"),
        entry(f"{mha}.in_proj_weight", (3 * D, D), "qkv", split=(3, H, K, D), axes=(3, 0, 1, 2)),
        entry(f"{mha}.in_proj_bias", (3 * D,), "qkv_bias", split=(3, H, K)),
        entry(f"{mha}.out_proj.weight", (D, D), "out", split=(D, H, K), axes=(1, 2, 0)),
        entry(f"{mha}.out_proj.bias", (D,), "out_bias"),
        entry(f"{mlp}.norm.weight", (D,), "mlp_norm/scale"),
        entry(f"{mlp}.norm.bias", (D,), "mlp_norm/bias"),
        entry(f"{mlp}.fn.net.0.weight", (F, D), "up", axes=(1, 0)),
        entry(f"{mlp}.fn.net.0.bias", (F,), "up_bias"),
        entry(f"{mlp}.fn.net.3.weight", (D, F), "down", axes=(1, 0)),
        entry(f"{mlp}.fn.net.3.bias", (D,), "down_bias"),
    ]

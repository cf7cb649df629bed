"""MaskGIL as released (synbol/MaskGIL, Network/gpt.py)."""

import math

from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.models.llama import PRESETS, LlamaConfig

KIND = "masked"
STATE_DICT_KEYS = ("model_state_dict", "model", "module", "ema")
IGNORED = ()


def config(tensors: Tensors, heads: int = 0, grid: tuple[int, int] = (16, 16)) -> LlamaConfig:
    """The network, read off the shapes; `heads` are dim / 64 unless told (--arg=heads=N)."""
    dim = tensors["tok_emb.weight"].shape[1]
    codebook_size = tensors["output.weight"].shape[0] - 1
    hidden = tensors["layers.0.feed_forward.w1.weight"].shape[0]
    return LlamaConfig(
        layers=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers.")),
        dim=dim,
        heads=heads or max(dim // 64, 1),
        codebook_size=codebook_size,
        num_classes=tensors["tok_emb.weight"].shape[0] - codebook_size - 2,
        grid=(grid,) if isinstance(grid, int) else grid,
        ffn_multiple=math.gcd(hidden, 256),
        **PRESETS["maskgil_released"],
    )


def entries(config: LlamaConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network with other switches than the released code has.
    """
    check_same("maskgil-gpt", config, PRESETS["maskgil_released"])
    D, H, K, F = config.dim, config.heads, config.head_dim, config.ffn_dim
    rows = config.codebook_size + 1 + config.num_classes + 1
    table = [Entry("tok_emb.weight", (rows, D), "embedding")]
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
                    slot=(i, all_rows, part),
                )
                for part, name in enumerate(("w1", "w3"))
            ),
            Entry(f"{layer}.feed_forward.w2.weight", (D, F), "blocks/down", axes=(1, 0), slot=(i,)),
            Entry(f"{layer}.attention_norm.weight", (D,), "blocks/attention_norm/scale", slot=(i,)),
            Entry(f"{layer}.ffn_norm.weight", (D,), "blocks/mlp_norm/scale", slot=(i,)),
        ]
    table.append(Entry("norm.weight", (D,), "norm/scale"))
    table.append(Entry("output.weight", (config.output_size, D), "head"))
    return table

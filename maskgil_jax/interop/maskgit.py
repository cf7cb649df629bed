"""Google's MaskGIT transformer in Flax (maskgit/nets/maskgit_transformer.py)."""

from maskgil_jax.interop.engine import Entry, Tensors, check_same
from maskgil_jax.interop.maskgit_pytorch import square
from maskgil_jax.models.token_models.bert import BertConfig

CONFIG = BertConfig
STATE_DICT_KEYS = ()
ANCHORS = ("params/Embed_0/word_embeddings/embedding",)
IGNORED = (r"^(?!params/)",)


def config(tensors: Tensors, classes: int = 1000, grid: tuple[int, int] = (0, 0)) -> BertConfig:
    """The network, read off the shapes.

    `classes` are the published ones unless they are given, and the grid is square.
    """
    kernel = "params/TransformerLayer_0/Attention_0/self_attention/query/kernel"
    dim, heads, _ = tensors[kernel].shape
    rows = tensors["params/Embed_0/word_embeddings/embedding"].shape[0]
    positions = tensors["params/Embed_0/position_embeddings/embedding"].shape[0]
    layers = {name.split("/")[1] for name in tensors if "/TransformerLayer_" in name}
    return BertConfig(
        layers=len(layers),
        dim=dim,
        heads=heads,
        mlp_dim=tensors["params/TransformerLayer_0/Mlp_0/intermediate_output/bias"].shape[0],
        codebook_size=rows - classes - 1,
        num_classes=classes,
        grid=grid if any(grid) else square(positions - 1),
        style="maskgit",
    )


def entries(config: BertConfig) -> list[Entry]:
    """The table.

    Raises:
      InputError: a network of another style.
    """
    check_same("maskgit", config, dict(style="maskgit"))
    D, rows = config.dim, config.rows
    positions = config.grid[0] * config.grid[1] + 1
    table = [
        Entry("params/Embed_0/word_embeddings/embedding", (rows, D), "embedding"),
        Entry("params/Embed_0/position_embeddings/embedding", (positions, D), "position_embedding"),
        *_norm("params/Embed_0/embeddings_ln", "embedding_norm", D),
        Entry("params/MlmLayer_0/mlm_dense/kernel", (D, D), "last/kernel"),
        Entry("params/MlmLayer_0/mlm_dense/bias", (D,), "last/bias"),
        *_norm("params/MlmLayer_0/mlm_ln", "last_norm", D),
        Entry("params/MlmLayer_0/mlm_bias/bias", (rows,), "head_bias"),
    ]
    for i in range(config.layers):
        table += _block(config, i)
    return table


def _block(config: BertConfig, i: int) -> list[Entry]:
    D, H, K, F = config.dim, config.heads, config.dim // config.heads, config.mlp_dim
    layer, every, slot = f"params/TransformerLayer_{i}", slice(None), (i,)
    attention, mlp = f"{layer}/Attention_0", f"{layer}/Mlp_0"
    table = [
        *_norm(f"{attention}/attention_output_ln", "blocks/attention_norm", D, slot),
        *_norm(f"{mlp}/layer_output_ln", "blocks/mlp_norm", D, slot),
    ]
    for index, name in enumerate(("query", "key", "value")):
        theirs = f"{attention}/self_attention/{name}"
        table += [
            Entry(f"{theirs}/kernel", (D, H, K), "blocks/qkv", slot=(i, every, index)),
            Entry(f"{theirs}/bias", (H, K), "blocks/qkv_bias", slot=(i, index)),
        ]
    dense = {
        f"{attention}/self_attention/out": ("out", (H, K, D)),
        f"{mlp}/intermediate_output": ("up", (D, F)),
        f"{mlp}/layer_output": ("down", (F, D)),
    }
    for theirs, (ours, shape) in dense.items():
        table += [
            Entry(f"{theirs}/kernel", shape, f"blocks/{ours}", slot=slot),
            Entry(f"{theirs}/bias", shape[-1:], f"blocks/{ours}_bias", slot=slot),
        ]
    return table


def _norm(name: str, path: str, D: int, slot: tuple[int, ...] = ()) -> list[Entry]:
    return [Entry(f"{name}/{x}", (D,), f"{path}/{x}", slot=slot) for x in ("scale", "bias")]

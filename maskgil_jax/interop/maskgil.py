"""This package's own LLaMA with every switch, for the module in PyTorch, maskgil_torch/."""

import dataclasses
import json

from maskgil_jax.interop import maskgil_gpt
from maskgil_jax.interop.engine import Entry, Tensors, count_layers
from maskgil_jax.models.token_models.llama_config import LlamaConfig

CONFIG = LlamaConfig
STATE_DICT_KEYS = ("model",)
ANCHORS = ("norm.weight",)
IGNORED = ()


def metadata(config: LlamaConfig) -> dict[str, str]:
    """The config, which stands beside the tensors, since they do not show all of it."""
    return {"config": json.dumps(dataclasses.asdict(config))}


def config(tensors: Tensors, metadata: dict[str, str]) -> LlamaConfig:
    """The network that the file describes.

    Raises:
      ValueError: another number of layers than there are.
    """
    config = LlamaConfig(**json.loads(metadata["config"]))
    if config.layers != (layers := count_layers(tensors, "layers.")):
        raise ValueError(f"there are {layers} layers, but its config says {config.layers}")
    return config


def entries(config: LlamaConfig) -> list[Entry]:
    """The table."""
    D, C, classes = config.dim, config.feature_dim, config.num_classes + 1
    if config.joint_embedding:
        table = [Entry("tok_emb.weight", (config.table_size + classes, D), "embedding")]
    else:
        table = [Entry("tok_embeddings.weight", (config.table_size, D), "code_embedding")]
    if C:
        table += [
            Entry("feature_in.weight", (D, C), "feature_in", axes=(1, 0)),
            Entry("feature_out.weight", (D, D), "feature_out", axes=(1, 0)),
            Entry("null_features", (config.condition_tokens, C), "null_features"),
        ]
    elif not config.joint_embedding:
        table.append(Entry("cls_embedding.weight", (classes, D), "class_embedding"))
    return [
        *table,
        *maskgil_gpt.blocks(config),
        Entry("output.weight", (config.output_size, D), "head", axes=(1, 0)),
    ]

"""Snapshots of Lumina-mGPT as they are downloaded, of the smallest size."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import CHAMELEON, LlamaConfig
from maskgil_jax.pretrained.prompted import PromptedCausalGenerator
from tests.helpers import golden

WORDS = ["Ġred", "Ġapple", "Ġgreen", "pear", "Ċ"]


def snapshot(folder, state, config, shards=1, **files):
    """A directory of this state dict; `files` are others, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(model_type="chameleon") | config))
    names = [sorted(state)[i::shards] for i in range(shards)]
    index = {}
    for i, part in enumerate(names, 1):
        file = f"model-{i:05}-of-{shards:05}.safetensors"
        save_file({name: np.ascontiguousarray(state[name]) for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def of_golden(name, folder, **settings):
    return snapshot(folder, golden.weights(name), golden.spec(name)["config"], 2, **settings)


@functools.cache
def vocabulary():
    """A tokenizer.json of bytes, a few words and all names that Lumina-mGPT's has."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    names = {lumina_sequence.name_of_code(k): 4 + k for k in range(lumina_sequence.CODES)}
    names |= lumina_sequence.NAMES
    for number in range(8706, 8868):
        names.setdefault(f"<reserved{number:05}>", number + 4)
    rest = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS]
    vocabulary = names | {word: 8872 + i for i, word in enumerate(rest)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer.to_str().encode()


@functools.cache
def generator(**changes):
    """A generator whose every weight is random, of 4 heads that share keys and sizes about 96."""
    config = LlamaConfig(
        **CHAMELEON | changes,
        layers=2,
        dim=32,
        heads=4,
        kv_heads=2,
        qk_norm_rows=(2, 2),
        vocabulary=9300,
        mlp_dim=48,
        grid=(6, 6),
    )
    rng = np.random.default_rng(3)

    def drawn(path, like):
        noise = rng.standard_normal(like.shape)
        of_norm = jax.tree_util.keystr(path).endswith(".scale.value")
        return jnp.asarray(1.0 + 0.1 * noise if of_norm else 0.4 * noise, like.dtype)

    shapes = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    network = jax.tree.map_with_path(drawn, shapes)
    return PromptedCausalGenerator(network, vocabulary=vocabulary())

"""Snapshots of Lumina-DiMOO as they are downloaded, and generators of the smallest size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.models.token_models import dimoo_sequence
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import LLADA, LlamaConfig
from maskgil_jax.pretrained.prompted import PromptedMaskedGenerator
from tests.helpers import golden, tiny_lumina

WORDS = ["Ġred", "Ġapple", "Ġgreen", "pear", "</system>", "<user>", "</user>"]


def of_golden(name, folder, **files):
    config = golden.spec(name)["config"] | dict(model_type="llada")
    return tiny_lumina.snapshot(folder, golden.weights(name), config, 2, **files)


@functools.cache
def vocabulary(name=dimoo_sequence.NO_PROMPT):
    """A tokenizer.json of bytes, a few words and the names of some signs."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    signs = {name: dimoo_sequence.UNCONDITION, "<|mdm_mask|>": dimoo_sequence.MASK}
    signs["<system>"] = 126352  # a word of the prompt that is no sign of an image
    rest = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS]
    tokenizer = Tokenizer(models.BPE(signs | {word: i for i, word in enumerate(rest)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(sign, special=True) for sign in signs])
    return tokenizer.to_str().encode()


@functools.cache
def generator():
    """A generator whose every weight is random, of 4 heads that share keys and sizes about 96."""
    config = LlamaConfig(
        **LLADA,
        layers=2,
        dim=32,
        heads=4,
        kv_heads=2,
        vocabulary=dimoo_sequence.VOCABULARY,
        mlp_dim=48,
        grid=(6, 6),
    )
    rng = np.random.default_rng(3)

    def drawn(path, like):
        noise = rng.standard_normal(like.shape, np.float32)
        of_norm = jax.tree_util.keystr(path).endswith(".scale.value")
        return jnp.asarray(1.0 + 0.1 * noise if of_norm else 0.4 * noise, like.dtype)

    shapes = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    network = jax.tree.map_with_path(drawn, shapes)
    return PromptedMaskedGenerator(network, vocabulary=vocabulary())

"""A text encoder of the smallest size, and its vocabulary."""

import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece

from maskgil_jax.models.encoders.gemma import Gemma, GemmaConfig
from maskgil_jax.pretrained.text_encoder import TextEncoder

CAPTIONS = [
    "a black dog runs over the grass",
    "two children in red play on a slide, and a third looks on",
    "zero",
    "seven and eight",
]

CONFIG = GemmaConfig(
    generation=3,
    layers=3,
    dim=32,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn_dim=48,
    vocab_size=400,
    query_pre_attn_scalar=16,
    rope_base=1000000.0,
    sliding_layers=(0, 2),
    sliding_window=3,
)


@functools.cache
def vocabulary():
    """A sentencepiece file as Gemma's: nothing normalised, and what is unknown as bytes."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 20),
        model_writer=written,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n", "\u2581\u2581", "\u2581\u2581\u2581"],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


@functools.cache
def network(**changes):
    """With random weights, the norms' too (whose scales are about 0); numpy compiles none."""
    config, rng = dataclasses.replace(CONFIG, **changes), np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: Gemma(config, jax.random.key(0)))
    return jax.tree.map(
        lambda like: jnp.asarray(0.1 * rng.standard_normal(like.shape), like.dtype), shapes
    )


def encoder(**changes):
    return TextEncoder(network(**changes), vocabulary())

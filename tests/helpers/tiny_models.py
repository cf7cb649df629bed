"""Untrained models of a few thousand weights, made in an instant."""

import functools

import jax

from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.generators import Generator, make_generator
from maskgil_jax.pretrained.loading import Tokenizer
from tests.helpers import tiny

SMALL = dict(layers=1, dim=16, heads=2, codebook_size=16, num_classes=4, grid=(2, 3))


def masked(provenance: dict | None = None) -> Generator:
    """Of 4 classes, 16 codes and a grid of 2 x 3."""
    return make_generator(_network(LlamaConfig(**SMALL)), provenance)


def causal() -> Generator:
    """As `masked`, token by token."""
    return make_generator(_network(LlamaConfig(**SMALL, **PRESETS["llamagen"], ffn_multiple=16)))


def tokenizer() -> Tokenizer:
    """Of 16 codes and a downsampling of 2."""
    return Tokenizer(_tokenizer(VQConfig(**tiny.SMALL_VQ | dict(codebook_size=16))))


@functools.cache
def _network(config: LlamaConfig) -> Llama:
    return jax.jit(lambda: Llama(config, jax.random.key(0)))()


@functools.cache
def _tokenizer(config: VQConfig) -> VQTokenizer:
    return jax.jit(lambda: VQTokenizer(config, jax.random.key(0)))()

"""A generator of text with its tokenizer and encoder, untrained and of the smallest size."""

import jax

from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.pretrained import loading
from maskgil_jax.pretrained.generators import make_generator
from tests.helpers import random_weights, tiny_gemma, tiny_models

CONFIG = LlamaConfig(
    layers=1,
    dim=16,
    heads=2,
    codebook_size=16,
    num_classes=0,
    feature_dim=32,
    condition_tokens=6,
    grid=(4, 4),
)


def save(folder):
    """FOLDER/model, which draws images of 8 x 8 pixels, FOLDER/tokenizer and FOLDER/encoder."""
    tiny_models.tokenizer().save(folder / "tokenizer")
    tiny_gemma.encoder().save(folder / "encoder")
    network = random_weights.network(lambda: Llama(CONFIG, jax.random.key(0)))
    tokenizer = loading.load_tokenizer(folder / "tokenizer").provenance
    encoder = loading.load_text_encoder(folder / "encoder").provenance
    make_generator(network, tokenizer, encoder=encoder).save(folder / "model")

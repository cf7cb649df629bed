"""The PyTorch decoders that the package ships give our pixels, of every family of tokenizers."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from PIL import Image

from maskgil_jax.interop import engine, maskgil_decoder, maskgil_torch
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.tokenizers import Tokenizer
from tests.helpers import random_weights

SHAPE = dict(channels=32, channel_multipliers=(1, 2), res_blocks=1, codebook_dim=6)
CASES = {
    "llamagen": dict(codebook_size=50, z_channels=32),
    "taming, deeper": dict(quantizer="euclidean", codebook_size=50, res_blocks=2),
    "chameleon": dict(quantizer="euclidean", codebook_size=50, z_channels=32, attention=False),
    "open-magvit2": dict(style="magvit2", quantizer="lookup_free", z_channels=0, attention=False)
    | dict(codebook_size=64),
    "maskgit": dict(style="maskgit", quantizer="euclidean", z_channels=0, attention=False)
    | dict(codebook_size=50, res_blocks=2),
}


def in_torch(network):
    tensors = engine.dump(maskgil_decoder.entries(network), network)
    decoder = maskgil_torch.Decoder(dataclasses.asdict(network.config))
    decoder.load_state_dict({name: torch.tensor(x) for name, x in tensors.items()})
    return decoder.eval()


@pytest.mark.parametrize("case", CASES)
def test_the_torch_decoder_gives_our_pixels(case):
    config = VQConfig(**SHAPE | CASES[case])
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))
    codes = np.random.default_rng(0).integers(config.codebook_size, size=(2, 3, 4))
    ours = np.asarray(Tokenizer(network).decode(codes))
    with torch.inference_mode():
        theirs = in_torch(network)(torch.from_numpy(codes)).permute(0, 2, 3, 1)
    assert theirs.shape == (2, 6, 8, 3) and ours.std() > 0.05
    np.testing.assert_allclose(theirs, ours, atol=3e-5 * np.abs(ours).max())


def test_a_png_is_what_was_written(tmp_path):
    image = torch.randint(256, (5, 7, 3), dtype=torch.uint8)
    maskgil_torch.write_png(str(tmp_path / "x.png"), image)
    with Image.open(tmp_path / "x.png") as read:
        np.testing.assert_array_equal(np.asarray(read), image)

"""Random weights, not those of the goldens, in the official network and in ours; also full size."""

import jax
import numpy as np
import pytest
import safetensors.torch
import torch

from maskgil_jax.interop import conversion
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained import loading
from tests.helpers import random_weights, torch_tokenizers

pytestmark = pytest.mark.gpu

EUCLIDEAN = dict(quantizer="euclidean", codebook_dim=256)
LOOKUP_FREE = dict(
    style="magvit2", res_blocks=4, attention=False, z_channels=0, quantizer="lookup_free"
)
# The published sizes: format, arguments.
FULL = {
    "vq16": ("llamagen-vq", dict()),
    "vq8": ("llamagen-vq", dict(channel_multipliers=(1, 2, 2, 4))),
    "taming": ("taming-vqgan", EUCLIDEAN | dict(codebook_size=1024)),
    "chameleon": ("chameleon-vq", EUCLIDEAN | dict(codebook_size=8192, attention=False)),
    "magvit2 f16": ("open-magvit2", LOOKUP_FREE | dict(codebook_size=2**18, codebook_dim=18)),
    "magvit2 f8": (
        "open-magvit2",
        LOOKUP_FREE | dict(codebook_size=2**14, codebook_dim=14, channel_multipliers=(1, 2, 2, 4)),
    ),
}
SMALL = dict(channels=32, channel_multipliers=(1, 2, 2))


@pytest.mark.parametrize(
    "name, size",
    [
        *(("vq16", "small"), ("magvit2 f16", "small")),  # the goldens are small ones of each
        *(pytest.param(name, "full", marks=pytest.mark.slow) for name in FULL),
    ],
)
def test_export_loads_strictly_and_gives_the_same_codes_and_pixels(name, size, tmp_path):
    format_name, arguments = FULL[name]
    config = VQConfig(**(arguments | SMALL if size == "small" else arguments))
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(1)))
    ours = loading.Tokenizer(network)
    ours.save(tmp_path / "model")
    conversion.export_model(format_name, str(tmp_path / "model"), str(tmp_path / "out.safetensors"))
    official = torch_tokenizers.build(format_name, config)
    official.load_state_dict(safetensors.torch.load_file(tmp_path / "out.safetensors"), strict=True)

    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, size=(2, 64, 32, 3)).astype(np.float32)
    grid = (2, 64 // config.downsample, 32 // config.downsample)
    codes = rng.integers(config.codebook_size, size=grid)
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        latents = official.latents(pixels).permute(0, 2, 3, 1).numpy()
        encoded = official.encode(pixels).numpy()
        decoded = official.decode(torch.from_numpy(codes)).permute(0, 2, 3, 1).numpy()
    scale = np.abs(latents).max()
    found = ours.latents(images)
    np.testing.assert_allclose(found, latents, atol=2e-5 * scale)
    np.testing.assert_allclose(ours.decode(codes), decoded, atol=5e-5 * np.abs(decoded).max())
    # A latent near the border between two codes may fall to either side.
    assert (np.asarray(ours.network.codes(found)) == encoded).mean() > 0.99

"""LlamaGen VQ-16 tokenizer: 16,384 codes of dimension 8, a 16x16 grid at 256 pixels, 72M.

    python -m maskgil_jax.main --config=configs/vq16.py --workdir=DIR \\
        --config.data.source=folder:PATH --config.loss.lpips=LPIPS_DIR

LlamaGen's recipe (its tokenizer/tokenizer_image/vq_train.py): mean squared error, LPIPS, PatchGAN
from step 20,000; Adam 1e-4, batch 128, 40 epochs. Without the VGG16 weights of LPIPS:
--config.loss.perceptual_weight=0 --config.loss.feature_weight=1 (the discriminator's features).
"""

from maskgil_jax import config as defaults


def get_config():
    """The defaults are this recipe."""
    return defaults.tokenizer()

"""LlamaGen VQ-16 tokenizer: 16,384 codes of dimension 8, a 16x16 grid at 256 pixels, 72M.

    python -m maskgil_jax.main --config=configs/vq16.py --workdir=DIR \\
        --config.data.source=folder:PATH

LlamaGen's recipe (its tokenizer/tokenizer_image/vq_train.py): Adam 1e-4, batch 128, 40 epochs,
PatchGAN from step 20,000. In place of LPIPS, whose VGG16 weights are a separate download, the
feature term compares the discriminator's features.
"""

from maskgil_jax import config as defaults


def get_config():
    """The defaults are this recipe."""
    config = defaults.tokenizer()
    config.steps = 40 * 1_281_167 // 128
    config.checkpoint_every = 5000
    config.pictures_every = 5000
    return config

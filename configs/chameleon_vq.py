"""Chameleon-VQ tokenizer: 8,192 codes of dimension 256, a 32x32 grid at 512 pixels, 69M.

    python -m maskgil_jax.main --config=configs/chameleon_vq.py --workdir=DIR \\
        --config.data.source=folder:PATH --config.loss.lpips=LPIPS_DIR

Its recipe is not published; this is the one of taming-transformers, whose code it is.
--config.data.image_size=256 gives a 16x16 grid.
"""

from maskgil_jax import config as defaults


def get_config():
    """The recipe of MaskGIT-VQ, more codes, attention in the middle only."""
    config = defaults.taming_tokenizer()
    config.data.image_size = 512
    config.model.update(codebook_size=8192, attention=False)
    return config

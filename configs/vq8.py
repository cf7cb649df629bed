"""LlamaGen VQ-8 tokenizer: 16,384 codes of dimension 8, a 32x32 grid at 256 pixels, 70M.

    python -m maskgil_jax.main --config=configs/vq8.py --workdir=DIR \\
        --config.data.source=folder:PATH --config.loss.lpips=LPIPS_DIR
"""

from maskgil_jax import config as defaults


def get_config():
    """The recipe of VQ-16 with one level less."""
    config = defaults.tokenizer()
    config.model.channel_multipliers = (1, 2, 2, 4)
    return config

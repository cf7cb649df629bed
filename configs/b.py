"""MaskGIL-B: bidirectional LLaMA, 111M parameters, class-conditional ImageNet at 256 pixels.

    python -m maskgil_jax.main --config=configs/b.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH
"""

from maskgil_jax import config as defaults


def get_config():
    """The paper's recipe, at size B."""
    config = defaults.generator()
    config.model.update(layers=12, dim=768, heads=12)
    return config

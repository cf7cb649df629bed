"""MaskGIL-L: bidirectional LLaMA, 343M parameters, class-conditional ImageNet at 256 pixels.

    python -m maskgil_jax.main --config=configs/l.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH
"""

from maskgil_jax import config as defaults


def get_config():
    """The paper's recipe, at size L."""
    config = defaults.generator()
    config.model.update(layers=24, dim=1024, heads=16)
    return config

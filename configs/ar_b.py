"""Causal LLaMA-B (LlamaGen's recipe), the autoregressive baseline, class-conditional ImageNet.

    python -m maskgil_jax.main --config=configs/ar_b.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH
"""

from maskgil_jax import config as defaults


def get_config():
    """LlamaGen's recipe, at size B."""
    return defaults.causal_generator()

"""MaskGIL-B that draws token by token too: one network trained on both tasks.

    python -m maskgil_jax.main --config=configs/both_b.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH

Half of the images have a causal prefix of 1 to all of their tokens, the rest of which is masked
(models/token_models/causal_prefix.py). The model is drawn from by --method=masked, autoregressive
and hybrid. Share, split and order are ours: the paper names such a network as future work.
"""

from maskgil_jax import config as defaults


def get_config():
    """The paper's recipe, at size B, on both tasks."""
    config = defaults.generator()
    config.loss.autoregressive_share = 0.5
    return config

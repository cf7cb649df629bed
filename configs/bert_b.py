"""The bidirectional Transformer of Besnier's MaskGIT, the baseline of the paper's figure 4.

    python -m maskgil_jax.main --config=configs/bert_b.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH

--config=configs/bert_b.py:maskgit and :halton are Google's and Halton-MaskGIT's networks.
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError

PRESETS = ("besnier", "maskgit", "halton")


def get_config(preset="besnier"):
    """The paper's recipe with the network of another paper, at 12 layers."""
    if preset not in PRESETS:
        raise InputError(f"{preset!r} after the colon, expected one of {', '.join(PRESETS)}")
    config = defaults.generator()
    config.model.update(preset=preset, layers=12, dim=768, heads=12)
    if preset == "maskgit":  # which has no null class
        config.loss.condition_dropout = 0.0
        config.samples.guidance = 1.0
    return config

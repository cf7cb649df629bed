"""One small network in three runs that differ in the task alone: masked, causal, both.

    python -m maskgil_jax.main --config=configs/small_both.py:both --workdir=RUNS/both \\
        --config.data.source=arrayrecord:CODES --config.model.num_classes=10

:masked is MaskGIL, :causal the same network token by token, :both is trained on both. CODES are
those of configs/small_generators.py. Steps, batch, optimizer and network are the same, so that
training FLOPs are too (a causal model runs 64 of the 65 tokens).
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError


def get_config(task="both"):
    """4 layers of 128, 800 steps of 64 images."""
    if task not in ("masked", "causal", "both"):
        raise InputError(f"{task!r} after the colon, expected masked, causal or both")
    config = defaults.generator()
    if task == "causal":
        optimizer = config.optimizer
        config = defaults.causal_generator()
        config.optimizer = optimizer
        config.model.update(preset="paper_causal", embedding_dropout=0.0)
    if task == "both":
        config.loss.autoregressive_share = 0.5
    config.model.update(layers=4, dim=128, heads=4, num_classes=10, dtype="float32")
    config.loss.label_smoothing = 0.0
    config.steps, config.batch_size = 800, 64
    config.data.image_size = 32
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup_steps=100)
    config.ema_decay = 0.999
    config.checkpoint_every = config.pictures_every = 400
    config.log_every = 50
    return config

"""A small generator from text, on few captioned images: minutes on two CPU cores.

    python -m maskgil_jax.main --config=configs/small_t2i.py:tokenizer --workdir=RUNS/vq \\
        --config.data.source=folder:PAIRS
    python -m maskgil_jax.tokenize --tokenizer=RUNS/vq/model --encoder=GEMMA --features \\
        --data=folder:PAIRS --image_size=64 --crops=flip --output=CODES
    python -m maskgil_jax.main --config=configs/small_t2i.py:generator --workdir=RUNS/t2i \\
        --config.encoder=GEMMA --config.data.source=arrayrecord:CODES

PAIRS holds NAME.txt, a caption a line, beside NAME.jpg (or .png, .webp); GEMMA is Gemma 3 270M.
"""

from maskgil_jax import config as defaults
from maskgil_jax.errors import InputError


def get_config(which="generator"):
    """A stage: tokenizer or generator."""
    if which == "tokenizer":
        return tokenizer()
    if which != "generator":
        raise InputError(f"configs/small_t2i.py:{which}: expected tokenizer or generator")
    config = defaults.generator()
    config.model.update(
        layers=4,
        dim=192,
        heads=6,
        num_classes=0,
        feature_dim=640,
        condition_tokens=24,
        dtype="float32",
    )
    config.steps, config.batch_size = 2000, 32
    config.data.image_size = 64
    config.optimizer.update(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    config.ema_decay = 0.998
    config.checkpoint_every = config.pictures_every = 500
    config.log_every = 50
    config.evaluation.metrics = ()
    return config


def tokenizer():
    """1,024 codes of 8 x 8 pixels."""
    config = defaults.tokenizer()
    config.steps, config.batch_size = 600, 16
    config.log_every, config.checkpoint_every, config.pictures_every = 50, 300, 300
    config.ema_decay = 0.995
    config.data.update(image_size=64, crop="center")
    config.model.update(
        channels=32,
        channel_multipliers=(1, 2, 2, 2),
        res_blocks=1,
        z_channels=64,
        codebook_size=1024,
        codebook_dim=8,
        dtype="float32",
    )
    config.discriminator.update(channels=16, layers=2)
    config.loss.update(perceptual_weight=0.0, feature_weight=1.0, adversarial_start=300)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=50, schedule="cosine")
    config.codebook.usage_window = 8192
    return config

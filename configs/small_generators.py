"""Small generators of equal size on small images: the paper's figures 3 and 4 in small.

    python -m maskgil_jax.main --config=configs/small_generators.py:tokenizer --workdir=RUNS/vq \\
        --config.data.source=folder:PHOTOS
    python -m maskgil_jax.tokenize --tokenizer=RUNS/vq/model --data=folder:PHOTOS \\
        --image_size=32 --crops=flip --output=CODES
    python -m maskgil_jax.main --config=configs/small_generators.py:llama --workdir=RUNS/llama \\
        --config.data.source=arrayrecord:CODES --config.model.num_classes=10

:llama is MaskGIL's bidirectional LLaMA, :transformer Besnier's bidirectional Transformer, :causal
LlamaGen's causal LLaMA.
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError

STEPS = 800


def get_config(which="llama"):
    """A stage: tokenizer, llama, transformer or causal."""
    if which == "tokenizer":
        return tokenizer()
    if which not in ("llama", "transformer", "causal"):
        raise InputError(
            f"{which!r} after the colon, expected tokenizer, llama, transformer or causal"
        )
    config = defaults.causal_generator() if which == "causal" else defaults.generator()
    config.model.update(layers=4, dim=128, heads=4, num_classes=10, dtype="float32")
    if which == "transformer":
        config.model.preset = "besnier"
    config.steps, config.batch_size = STEPS, 64
    config.data.image_size = 32
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup_steps=100)
    config.ema_decay = 0.999
    config.checkpoint_every = config.pictures_every = 400
    config.log_every = 50
    return config


def tokenizer():
    """512 codes of 4 x 4 pixels, without LPIPS, which needs weights from elsewhere."""
    config = defaults.tokenizer()
    config.steps, config.batch_size = 300, 32
    config.log_every, config.checkpoint_every, config.pictures_every = 50, 150, 150
    config.ema_decay = 0.995
    config.data.update(image_size=32, crop="center")
    config.model.update(
        channels=32,
        channel_multipliers=(1, 2, 2),
        res_blocks=1,
        z_channels=64,
        codebook_size=512,
        codebook_dim=8,
        dtype="float32",
    )
    config.discriminator.update(channels=16, layers=2)
    config.loss.update(perceptual_weight=0.0, feature_weight=1.0, adversarial_start=150)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=50, schedule="cosine")
    config.codebook.usage_window = 8192
    return config

"""CIFAR-10 by class: tokenizer, codes and generator of photos of 32 pixels, in one run.

    python -m maskgil_jax.main --config=configs/cifar10.py --workdir=RUNS/cifar10
    python -m maskgil_jax.main --config=configs/cifar10.py:cpu --workdir=RUNS/cifar10 \\
        --config.stages.tokenizer.data.source=folder:CIFAR10/train \\
        --config.stages.codes.source=folder:CIFAR10/train

The first is sized, by its FLOPs, for ten minutes of a GPU, and has not been run to its end yet.
The second takes 84 minutes of two cores with AVX-512 (without, steps of its tokenizer run at less
than a third of that speed), and the images from a folder with a folder for each class; what it
gives is shown in maskgil_jax/workflows/README.md.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError


def get_config(machine="gpu"):
    """8 x 8 tokens of 1,024 codes."""
    if machine not in ("gpu", "cpu"):
        raise InputError(f"{machine!r} after the colon, expected gpu or cpu")
    source = "tfds:cifar10/train"
    tokenizer = defaults.tokenizer()
    tokenizer.steps, tokenizer.batch_size = 10_000, 128
    tokenizer.log_every, tokenizer.checkpoint_every, tokenizer.pictures_every = 100, 2000, 5000
    tokenizer.ema_decay = 0.999
    tokenizer.data.update(source=source, image_size=32, crop="center")
    tokenizer.model.update(
        channels=64,
        channel_multipliers=(1, 2, 4),
        res_blocks=2,
        attention=False,
        z_channels=128,
        codebook_size=1024,
    )
    tokenizer.discriminator.update(channels=32, layers=2)
    # Features of the discriminator stand in for LPIPS, which needs weights from elsewhere.
    tokenizer.loss.update(reconstruction="l1", perceptual_weight=0.0, feature_weight=1.0)
    tokenizer.loss.update(adversarial_weight=0.1, adversarial_start=2000)
    tokenizer.codebook.update(usage_window=65536, restart_every=20)
    tokenizer.optimizer.update(learning_rate=5e-4, warmup_steps=200, schedule="cosine")

    codes = defaults.codes()
    codes.update(tokenizer="{workdir}/tokenizer/model", source=source, image_size=32, crops="flip")

    generator = defaults.generator()
    generator.steps, generator.batch_size = 10_000, 256
    generator.log_every, generator.checkpoint_every, generator.pictures_every = 100, 2000, 5000
    generator.ema_decay = 0.9995
    generator.data.update(source="arrayrecord:{workdir}/codes", image_size=32)
    generator.model.update(layers=12, dim=384, heads=6, num_classes=10)
    generator.optimizer.update(learning_rate=1e-3, warmup_steps=500, schedule="cosine")

    if machine == "cpu":
        tokenizer.steps, tokenizer.batch_size = 12_000, 8
        tokenizer.model.update(channels=32, res_blocks=1, z_channels=64, dtype="float32")
        tokenizer.loss.update(feature_weight=0.0, adversarial_weight=0.0)
        tokenizer.optimizer.update(algorithm="muon", learning_rate=2e-3)
        # As with the emoji: what keeps a network from learning by heart only slows so short a run.
        generator.steps, generator.batch_size = 10_000, 32
        generator.model.update(layers=6, dim=256, heads=4, dropout=0.0)
        generator.loss.label_smoothing = 0.0
        generator.optimizer.update(algorithm="muon", learning_rate=2e-3)
    return ConfigDict(
        {"stages": {"tokenizer": tokenizer, "codes": codes, "generator": generator}}
    ).lock()

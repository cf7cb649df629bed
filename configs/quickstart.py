"""From nothing to generated images on a laptop: real digits, a tokenizer, a generator, metrics.

    python -m maskgil_jax.main --config=configs/quickstart.py --workdir=/tmp/quickstart

Chains the stages that the other configs run one at a time; about three minutes on two cores with
AVX-512, eight without. Expect a grid in which every digit is recognised, in
WORKDIR/samples/grid.png.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults


def get_config():
    """Tokenizer, code shards, generator."""
    tokenizer = defaults.tokenizer()
    tokenizer.steps, tokenizer.batch_size = 400, 32
    tokenizer.log_every, tokenizer.checkpoint_every, tokenizer.pictures_every = 20, 100, 200
    tokenizer.data.update(source="embedded", image_size=16, flip=False)  # a mirrored 2 is no digit
    tokenizer.model.update(
        channels=32,
        channel_multipliers=(1, 2, 2),
        res_blocks=1,
        z_channels=64,
        codebook_size=512,
        dtype="float32",
    )
    tokenizer.discriminator.update(channels=16, layers=2)
    tokenizer.loss.update(perceptual_weight=0.0, feature_weight=0.1)  # no VGG weights to download
    tokenizer.loss.update(adversarial_weight=0.1, discriminator_weight=0.1, adversarial_start=200)
    tokenizer.optimizer.update(learning_rate=1e-3, warmup_steps=20, schedule="cosine")
    tokenizer.evaluation.reference = "embedded:test"

    codes = defaults.codes()
    codes.update(tokenizer="{workdir}/tokenizer/model", source="embedded", image_size=16)

    generator = defaults.generator()
    generator.steps, generator.batch_size = 600, 128
    generator.log_every, generator.checkpoint_every, generator.pictures_every = 20, 100, 200
    generator.ema_decay = 0.99
    generator.data.update(source="arrayrecord:{workdir}/codes", image_size=16)
    generator.model.update(layers=4, dim=128, heads=4, num_classes=10, dtype="float32")
    generator.optimizer.update(learning_rate=2e-3, warmup_steps=50, schedule="cosine")
    generator.samples.guidance = 2.0
    generator.evaluation.update(reference="embedded", per_class=50)

    return ConfigDict(
        {"stages": {"tokenizer": tokenizer, "codes": codes, "generator": generator}}
    ).lock()

"""The smallest runs that go through everything: a config file, also for tests that start processes.

--config=tests/helpers/tiny.py:tokenizer, :generator (needs tokenizer, source) or nothing for all.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults

SMALL_VQ = dict(
    channels=32,
    channel_multipliers=(1, 1),
    res_blocks=1,
    z_channels=32,
    codebook_size=64,
    codebook_dim=4,
)


def tokenizer():
    config = defaults.tokenizer()
    config.steps, config.batch_size = 6, 16
    config.log_every, config.checkpoint_every, config.pictures_every = 1, 2, 6
    config.ema_decay = 0.9
    config.data.update(source="embedded", image_size=8, flip=False, threads=2)
    config.model.update(**SMALL_VQ, dtype="float32")
    config.discriminator.update(channels=8, layers=1)
    config.loss.update(perceptual_weight=0.0, feature_weight=1.0, adversarial_start=2)
    config.codebook.usage_window = 512
    config.evaluation.update(reference="embedded:test", count=20)
    return config


def codes():
    config = defaults.codes()
    config.update(
        tokenizer="{workdir}/tokenizer/model", source="embedded", image_size=8, shard_size=500
    )
    return config


def generator():
    config = defaults.generator()
    config.steps, config.batch_size = 6, 32
    config.log_every, config.checkpoint_every, config.pictures_every = 1, 2, 6
    config.ema_decay = 0.9
    config.data.update(source="arrayrecord:{workdir}/codes", image_size=8, threads=2)
    config.model.update(layers=2, dim=32, heads=2, num_classes=10, dtype="float32")
    config.samples.update(per_class=2, steps=3, batch_size=20)
    config.evaluation.update(reference="embedded", per_class=4)
    return config


def causal_generator(finished):
    """On the codes of a finished work directory."""
    config = defaults.causal_generator()
    config.steps, config.batch_size = 6, 32
    config.log_every, config.checkpoint_every, config.pictures_every = 1, 3, 6
    config.ema_decay = 0.0
    config.data.update(source=f"arrayrecord:{finished}/codes", image_size=8, threads=2)
    config.model.update(layers=2, dim=32, heads=2, num_classes=10, dtype="float32")
    config.optimizer.learning_rate = 3e-3
    config.samples.update(per_class=2, batch_size=20)
    config.evaluation.update(reference="embedded", per_class=2)
    return config


def get_config(stage=""):
    if stage:
        return {"tokenizer": tokenizer, "codes": codes, "generator": generator}[stage]()
    stages = {"tokenizer": tokenizer(), "codes": codes(), "generator": generator()}
    return ConfigDict({"stages": stages}).lock()

"""Emoji from their names, on a laptop: tokenizer, codes with features of the names, generator.

    python -m maskgil_jax.main --config=configs/emoji.py --workdir=RUNS/emoji \\
        --config.stages.tokenizer.data.source=folder:EMOJI/train \\
        --config.stages.codes.source=folder:EMOJI/train \\
        --config.stages.codes.encoder=GEMMA --config.stages.generator.encoder=GEMMA

EMOJI/train holds NAME.png with NAME.txt, a name of the emoji a line; GEMMA is the directory of
Gemma 3 270M. maskgil_jax/conditioning/README.md makes both and shows what comes out. Any folder of
some thousand small pictures with short captions will do.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults


def get_config():
    """Pictures of 32 pixels, 8 x 8 tokens, 12 tokens of a name."""
    tokenizer = defaults.tokenizer()
    tokenizer.steps, tokenizer.batch_size = 8000, 8
    tokenizer.log_every, tokenizer.checkpoint_every, tokenizer.pictures_every = 200, 1000, 4000
    tokenizer.ema_decay = 0.998
    tokenizer.data.update(image_size=32, crop="center", flip=False)
    tokenizer.model.update(
        channels=32,
        channel_multipliers=(1, 2, 4),
        res_blocks=1,
        attention=False,
        z_channels=64,
        codebook_size=512,
        codebook_dim=8,
        dtype="float32",
    )
    # L1 keeps the flat colours flat and the edges sharp; no weights to download, no discriminator.
    tokenizer.loss.update(reconstruction="l1", perceptual_weight=0.0, adversarial_weight=0.0)
    tokenizer.optimizer.update(
        algorithm="muon", learning_rate=2e-3, warmup_steps=50, schedule="cosine"
    )
    tokenizer.codebook.update(usage_window=8192, restart_every=20)

    codes = defaults.codes()
    codes.update(tokenizer="{workdir}/tokenizer/model", image_size=32)
    codes.update(features=True, caption_tokens=12)

    generator = defaults.generator()
    # Few images: small batches, many steps, and nothing that keeps the network from learning them.
    generator.steps, generator.batch_size = 12_500, 16
    generator.log_every, generator.checkpoint_every, generator.pictures_every = 200, 2000, 4000
    generator.ema_decay = 0.999
    generator.data.update(source="arrayrecord:{workdir}/codes", image_size=32)
    generator.model.update(
        layers=4,
        dim=256,
        heads=4,
        num_classes=0,
        feature_dim=640,
        condition_tokens=12,
        dropout=0.0,
    )
    generator.loss.label_smoothing = 0.0
    generator.optimizer.update(
        algorithm="muon", learning_rate=2e-3, warmup_steps=200, schedule="cosine"
    )

    return ConfigDict(
        {"stages": {"tokenizer": tokenizer, "codes": codes, "generator": generator}}
    ).lock()

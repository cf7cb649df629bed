"""A small tokenizer of each family on images of 32 pixels, two minutes on two cores.

    python -m maskgil_jax.main --config=configs/small_vq.py:magvit2 --workdir=RUNS/magvit2 \\
        --config.data.source=folder:PATH

The argument is vq16, maskgit_vq, maskgit_vq_google, chameleon_vq or magvit2: style, quantizer and
codebook losses of that family on a narrow network with 8x8 tokens. All are trained on mean squared
error alone, so that PSNR compares what the quantizers keep; no LPIPS weights are needed.
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError

# Of the model, and of the loss.
FAMILIES = {
    "vq16": (dict(quantizer="cosine", codebook_size=16384, codebook_dim=8), dict()),
    "maskgit_vq": (dict(quantizer="euclidean", codebook_size=1024, codebook_dim=64), dict()),
    "maskgit_vq_google": (
        dict(style="maskgit", quantizer="euclidean", codebook_size=1024, codebook_dim=64)
        | dict(attention=False, z_channels=0),
        dict(entropy_weight=0.1),
    ),
    "chameleon_vq": (
        dict(quantizer="euclidean", codebook_size=8192, codebook_dim=64, attention=False),
        dict(),
    ),
    "magvit2": (
        dict(style="magvit2", quantizer="lookup_free", codebook_size=2**18, codebook_dim=18)
        | dict(attention=False, z_channels=0),
        dict(entropy_weight=0.1),
    ),
}


def get_config(family="vq16"):
    """The small tokenizer of a family."""
    if family not in FAMILIES:
        raise InputError(f"{family!r} after the colon, expected one of {', '.join(FAMILIES)}")
    model, loss = FAMILIES[family]
    config = defaults.tokenizer()
    config.steps, config.batch_size = 260, 16
    config.log_every, config.checkpoint_every, config.pictures_every = 20, 130, 130
    config.data.image_size = 32
    config.model.update(
        channels=32, channel_multipliers=(1, 2, 2), res_blocks=1, z_channels=64, dtype="float32"
    )
    config.model.update(model)
    config.discriminator.update(channels=16, layers=2)
    config.loss.update(perceptual_weight=0.0, adversarial_weight=0.0, **loss)
    config.codebook.update(usage_window=8192, restart_every=0 if family == "magvit2" else 20)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=20, schedule="cosine")
    return config

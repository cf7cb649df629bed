"""Open-MAGVIT2 tokenizer: 262,144 lookup-free codes, a 16x16 grid at 256 pixels, 115M.

    python -m maskgil_jax.main --config=configs/magvit2.py --workdir=DIR \\
        --config.data.source=folder:PATH --config.loss.lpips=LPIPS_DIR

Its recipe for ImageNet (TencentARC/SEED-Voken, configs/Open-MAGVIT2/gpu): L1, LPIPS, PatchGAN with
LeCam from the start, entropy term; 270 epochs of batch 256.
`--config=configs/magvit2.py:128` is the one for 128 pixels, 8 of them a token, 112M.
16,384 codes: --config.model.codebook_dim=14 --config.model.codebook_size=16384.
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError

EPOCH = 1_281_167 // 256  # steps


def get_config(pixels="256"):
    """The recipe for images of "256" or "128" pixels."""
    if pixels not in ("256", "128"):
        raise InputError(f"{pixels!r} after the colon, expected 256 or 128")
    config = defaults.tokenizer()
    config.batch_size = 256
    config.ema_decay = 0.999
    config.data.update(crop="whole_side", flip=False)
    config.model.update(
        style="magvit2",
        res_blocks=4,
        attention=False,
        z_channels=0,
        quantizer="lookup_free",
        codebook_size=2**18,
        codebook_dim=18,
    )
    config.loss.update(
        reconstruction="l1",
        entropy_weight=0.1,
        commitment_weight=0.25,
        adversarial="non_saturating",
        adversarial_weight=0.1,
        adversarial_start=0,
        discriminator_weight=1.0,
        lecam_weight=0.05,
    )
    config.optimizer.update(beta1=0.5, beta2=0.9, clip_norm=0.0)
    config.steps, config.optimizer.milestones = 270 * EPOCH, (200 * EPOCH, 250 * EPOCH)
    if pixels == "128":
        config.data.image_size = 128
        config.model.channel_multipliers = (1, 2, 2, 4)
        config.loss.lecam_weight = 0.01
        config.steps, config.optimizer.milestones = 350 * EPOCH, (250 * EPOCH, 300 * EPOCH)
    return config

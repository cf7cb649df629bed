"""MaskGIT-VQ tokenizer: 1,024 codes of dimension 256, a 16x16 grid at 256 pixels.

    python -m maskgil_jax.main --config=configs/maskgit_vq.py --workdir=DIR \\
        --config.data.source=folder:PATH --config.loss.lpips=LPIPS_DIR

As the paper (and Besnier and Chen) mean it, this is taming-transformers' VQGAN f16, 72M, with its
recipe: L1, LPIPS, PatchGAN from step 250,001 with the adaptive weight.
`--config=configs/maskgit_vq.py:google` is google-research/maskgit's own tokenizer, 55M, with what
is known of its recipe: StyleGAN discriminator with R1, non-saturating losses, entropy term.
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError

RECIPES = ("taming", "google")


def get_config(recipe="taming"):
    """The recipe of "taming" or of "google"."""
    if recipe not in RECIPES:
        raise InputError(f"{recipe!r} after the colon, expected one of {', '.join(RECIPES)}")
    config = defaults.taming_tokenizer()
    if recipe == "taming":
        return config
    config.batch_size, config.steps = 256, 1_000_000
    config.ema_decay = 0.999
    config.model.update(style="maskgit", attention=False, z_channels=0)
    config.discriminator.kind = "stylegan"
    config.loss.update(
        reconstruction="l2",  # the pixel term is not in the released code
        perceptual_weight=0.1,  # nor is the network of this one; LPIPS here
        codebook_weight=1.0,
        commitment_weight=0.25,
        entropy_weight=0.1,
        adversarial="non_saturating",
        adversarial_weight=0.1,
        adaptive_weight=False,
        adversarial_start=0,
        discriminator="vanilla",
        discriminator_weight=2.0,  # the sum over real and fake images, where ours is the mean
        r1_weight=40.0,  # its 10 is for images in [0, 1]
    )
    config.optimizer.update(learning_rate=1e-4, beta1=0.0, beta2=0.99)
    return config

"""Tables 1 and 5: tokenizers by what they keep of an image, what they use, and what they take.

    python -m maskgil_jax.study --config=configs/studies/tokenizers.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/tokenizers.py --workdir=DIR \\
        --config.measure.inception=INCEPTION --config.measure.reference=tfds:imagenet2012/validation

The published families on ImageNet; :small has a narrow network for each, on digits, which
configs/small_vq.py has on photos.
"""

from maskgil_jax import study_config
from maskgil_jax.study_config import tokenizer_of_imagenet

PAPER = ("maskgit_vq", "maskgit_vq:google", "chameleon_vq", "vq16", "magvit2")
SMALL = ("maskgit_vq", "maskgit_vq_google", "chameleon_vq", "vq16", "magvit2")


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        configs = {name: small(name) for name in SMALL}
    else:
        configs = {name.replace(":", "_"): tokenizer_of_imagenet(name) for name in PAPER}
    study = study_config.study(configs["vq16"])
    study.axes = {"tokenizer": tuple(configs)}
    study.changes = {"tokenizer": {name: {"tokenizer": one} for name, one in configs.items()}}
    study.curves = ("psnr", "codebook_usage")
    study.measure.update(reference="embedded:test", num=360)
    if form == "paper":
        study.measure.update(reference="", num=50_000)
    return study


def small(family):
    """8 x 8 tokens of digits of 16 pixels."""
    config = study_config.named(f"small_vq:{family}")
    config.data.update(source="embedded", image_size=16, flip=False)
    config.model.channel_multipliers = (1, 2)
    config.evaluation.update(reference="embedded:test", count=360)
    return config

"""Figures 3 and 4, tables 4 and 6: the network, over tokenizers and epochs.

    python -m maskgil_jax.study --config=configs/studies/networks.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/networks.py --workdir=DIR \\
        --config.measure.reference=F.npz --config.measure.inception=INCEPTION

Besnier's bidirectional Transformer, the bidirectional LLaMA and the causal LLaMA, of size B, on the
codes of four tokenizers of ImageNet, which are trained too; :small has one tokenizer of digits.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax import study_config
from maskgil_jax.study_config import tokenizer_of_imagenet

TOKENIZERS = ("maskgit_vq", "chameleon_vq", "vq16", "magvit2")


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        causal = study_config.small(defaults.causal_generator().unlock())
        study.axes = {"network": ("transformer", "llama", "causal"), "at_step": (300, 900)}
        study.order = ("network", "at_step")
        study.changes = {"network": networks(causal)}
        return study
    study = study_config.study(paper())
    study.decoding = {"guidance": 2.0}
    study.measure.update(num=50_000, batch_size=256, protocol="adm")
    steps = tuple(study_config.EPOCH * epochs for epochs in (50, 100, 200))
    study.axes = {
        "tokenizer": TOKENIZERS,
        "network": ("transformer", "llama", "causal"),
        "at_step": steps,
    }
    study.order = ("tokenizer", "network", "at_step")
    study.changes = {
        "tokenizer": {name: {"tokenizer": tokenizer_of_imagenet(name)} for name in TOKENIZERS},
        "network": networks(generator(study_config.named("ar_b"))),
    }
    return study


def networks(causal):
    """What each network changes; `causal` is the whole stage of the causal one."""
    return {
        "transformer": {"generator": {"model": {"preset": "besnier"}}},
        "llama": {},
        "causal": {"generator": causal},
    }


def paper():
    """Tokenizer, codes of ten crops, generator of 200 epochs."""
    codes = defaults.codes()
    codes.update(tokenizer="{workdir}/tokenizer/model", source="tfds:imagenet2012/train")
    codes.crops = "ten"
    stages = {"tokenizer": tokenizer_of_imagenet("vq16"), "codes": codes}
    return ConfigDict({"stages": {**stages, "generator": generator(study_config.named("b"))}})


def generator(config):
    """On the codes of the stage before."""
    config.steps = 200 * study_config.EPOCH
    config.data.source = "arrayrecord:{workdir}/codes"
    return config

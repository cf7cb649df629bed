"""The number of codes within one family of tokenizers; the paper's four differ in more than that.

    python -m maskgil_jax.study --config=configs/studies/codebook_size.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/codebook_size.py --workdir=DIR \\
        --config.measure.reference=F.npz --config.measure.inception=INCEPTION

LlamaGen's VQ-16 with 1,024 to 262,144 codes on ImageNet, and a generator of size B on the codes of
each; :small has 16 to 256 codes, of digits.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax import study_config


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        study.axes = {"codebook_size": (16, 64, 256)}
    else:
        study = study_config.study(paper())
        study.decoding = {"guidance": 2.0}
        study.measure.update(num=50_000, batch_size=256, protocol="adm")
        study.axes = {"codebook_size": (1024, 8192, 16384, 262144)}
    study.fields = {"codebook_size": "tokenizer.model.codebook_size"}
    return study


def paper():
    """Tokenizer, codes of ten crops, generator of 50 epochs."""
    tokenizer = study_config.tokenizer_of_imagenet("vq16")
    codes = defaults.codes()
    codes.update(tokenizer="{workdir}/tokenizer/model", source="tfds:imagenet2012/train")
    codes.crops = "ten"
    generator = study_config.named("b")
    generator.steps = 50 * study_config.EPOCH
    generator.data.source = "arrayrecord:{workdir}/codes"
    return ConfigDict({"stages": {"tokenizer": tokenizer, "codes": codes, "generator": generator}})

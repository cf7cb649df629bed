"""Figure 5c: norms of queries, keys and of what layers give, against a growing output.

    python -m maskgil_jax.study --config=configs/studies/norms.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/norms.py --workdir=DIR \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=F.npz \\
        --config.measure.inception=INCEPTION

XXL without norms, with QK-norm alone, and with both; :small has 4 layers of 64, on digits.
"""

from maskgil_jax import study_config

CHANGES = {
    "none": {"generator": {"model": {"qk_norm": "none", "post_norm": "none"}}},
    "qk": {"generator": {"model": {"post_norm": "none"}}},
    "both": {},  # as the preset says
}


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        steps = (300, 600, 900)
    else:
        study = study_config.on_codes(study_config.named("xxl"))
        steps = tuple(study_config.EPOCH * epochs for epochs in (10, 25, 50))
    study.axes = {"norms": ("none", "qk", "both"), "at_step": steps}
    study.order = ("norms", "at_step")
    study.changes = {"norms": CHANGES}
    study.curves = ("output_norm", "loss")
    study.measure.logged = ("output_norm", "loss")
    return study

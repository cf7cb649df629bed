"""Figure 9: how many tokens are drawn one by one before the rest is drawn masked.

    python -m maskgil_jax.study --config=configs/studies/prefix.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/prefix.py --workdir=DIR \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=F.npz \\
        --config.measure.inception=INCEPTION

The paper has two networks; here one is trained on both tasks (configs/both_b.py), which draws its
own prefix; --config.decoding.prefix_model=DIR names another for it. :small has 4 layers of 64, on
digits.
"""

from maskgil_jax import study_config


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        base = study_config.digits().unlock()
        base.stages.generator.loss.autoregressive_share = 0.5
        study = study_config.on_digits(base)
        study.axes = {"prefix": (0, 8, 16, 32, 48, 64)}
    else:
        study = study_config.on_codes(study_config.named("both_b"), epochs=300)
        study.axes = {"prefix": (0, 32, 64, 96, 128, 160, 192, 224, 256)}
    study.decoding = {"method": "hybrid", "guidance": 2.0, "prefix_guidance": 2.0}
    study.decoding.prefix_model = ""  # a causal model that is there; "": the network itself
    study.measure.codes = ""  # a hybrid has no likelihood
    return study

"""Figure 10: the number of steps of decoding.

    python -m maskgil_jax.study --config=configs/studies/steps.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/steps.py --workdir=DIR \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=F.npz \\
        --config.measure.inception=INCEPTION

Size L after 300 epochs; :small has 4 layers of 64, on digits.
"""

from maskgil_jax import study_config


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        study.axes = {"steps": (1, 2, 4, 8, 16, 32)}
    else:
        study = study_config.on_codes(study_config.named("l"), epochs=300)
        study.axes = {"steps": (2, 4, 6, 8, 10, 12, 16, 24, 32)}
    return study

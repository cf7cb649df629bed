"""Figure 5b and tables 4, 6, 7: guidance, at several epochs of one run.

    python -m maskgil_jax.study --config=configs/studies/guidance.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/guidance.py --workdir=DIR \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=F.npz \\
        --config.measure.inception=INCEPTION

Size L at 50, 100 and 200 epochs; :small has 4 layers of 64, on digits.
"""

from maskgil_jax import study_config


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        study.axes = {"at_step": (300, 900), "guidance": (1.0, 1.5, 2.0, 3.0, 4.0)}
    else:
        study = study_config.on_codes(study_config.named("l"), epochs=200)
        steps = tuple(study_config.EPOCH * epochs for epochs in (50, 100, 200))
        study.axes = {"at_step": steps, "guidance": (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)}
    study.order = ("at_step", "guidance")
    return study

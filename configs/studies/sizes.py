"""Table 3, table 7 and figure 5a: the size of the network, at several epochs of each run.

    python -m maskgil_jax.study --config=configs/studies/sizes.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/sizes.py --workdir=DIR \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=F.npz \\
        --config.measure.inception=INCEPTION

B to XXL at 50, 100, 200 and 300 epochs; :small has 1 layer of 32 to 6 of 96, on digits.
"""

from maskgil_jax import study_config

SMALL = {"1x32": (1, 32, 2), "2x48": (2, 48, 3), "4x64": (4, 64, 4), "6x96": (6, 96, 6)}


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        changes = {
            name: {"generator": {"model": {"layers": layers, "dim": dim, "heads": heads}}}
            for name, (layers, dim, heads) in SMALL.items()
        }
        steps = (300, 900)
    else:
        study = study_config.on_codes(study_config.named("b"), epochs=300)
        changes = {}
        for name in ("b", "l", "xl", "xxl"):
            model = study_config.named(name)
            changes[name] = {"generator": {"model": model.model, "mesh": model.mesh}}
        steps = tuple(study_config.EPOCH * epochs for epochs in (50, 100, 200, 300))
    study.axes = {"size": tuple(changes), "at_step": steps}
    study.order = ("size", "at_step")
    study.changes = {"size": changes}
    study.curves = ("loss",)
    return study

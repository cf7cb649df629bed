"""Figure 5c: how norms of queries and keys, and of what layers give, hold a network's output.

    python -m maskgil_jax.study --config=configs/studies/norms.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/norms.py --workdir=gs://BUCKET/norms \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=REFERENCE.npz

The paper's network XXL without norms, with QK-norm alone, and with both; :small is the same of 4
layers of 64 on handwritten digits.
"""

from maskgil_jax import config as defaults
from maskgil_jax import study_config
from maskgil_jax.runtime.errors import InputError

EPOCH = 1_281_167 // 256  # steps


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    if form not in ("paper", "small"):
        raise InputError(f"{form!r} after the colon, expected paper or small")
    study = study_config.study(study_config.digits() if form == "small" else paper())
    study.changes = {
        "norms": {
            name: {"generator": {"model": {"qk_norm": qk_norm, "post_norm": post_norm}}}
            for name, qk_norm, post_norm in (
                ("none", "none", "none"),
                ("qk", "layer", "none"),
                ("both", "layer", "sandwich"),
            )
        }
    }
    study.curves = ("output_norm", "loss")
    study.measure.logged = ("output_norm", "loss")
    if form == "small":
        study.axes = dict(norms=("none", "qk", "both"), at_step=(100, 200, 400))
        study.order = ("norms", "at_step")
        study.decoding = dict(guidance=2.0)
        study.measure.update(reference="embedded:test", num=500, codes="embedded:test")
        study.measure.metrics = ("frechet", "pr", "accuracy")
        return study
    study.axes = dict(norms=("none", "qk", "both"), at_step=tuple(EPOCH * n for n in (10, 25, 50)))
    study.order = ("norms", "at_step")
    study.decoding = dict(guidance=2.0)
    study.measure.update(num=50_000, protocol="adm", batch_size=256)
    return study


def paper():
    """XXL for 50 epochs."""
    config = defaults.generator()
    config.model.update(layers=48, dim=1536, heads=24, remat="full")
    config.mesh.update(data=-1, fsdp=-1)
    config.steps = 50 * EPOCH
    return config

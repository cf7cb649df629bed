"""The batch size, for the same number of images: 256 is best by the paper.

    python -m maskgil_jax.study --config=configs/studies/batch_size.py:small --workdir=DIR
    python -m maskgil_jax.study --config=configs/studies/batch_size.py --workdir=DIR \\
        --config.base.data.source=arrayrecord:CODES --config.measure.reference=F.npz \\
        --config.measure.inception=INCEPTION

Size B for 50 epochs; :small has 4 layers of 64, on 9,600 digits. The learning rate is the same in
all, as the paper says nothing of it.
"""

from maskgil_jax import study_config


def get_config(form="paper"):
    """The study in the paper's form, or small."""
    study_config.check_form(form)
    if form == "small":
        study = study_config.on_digits()
        sizes, images = (16, 32, 64, 128), 900 * 64
    else:
        study = study_config.on_codes(study_config.named("b"))
        sizes, images = (64, 128, 256, 512, 1024), 50 * 1_281_167
    study.axes = {"batch_size": tuple(map(str, sizes))}
    study.changes = {
        "batch_size": {
            str(size): {"generator": {"batch_size": size, "steps": images // size}}
            for size in sizes
        }
    }
    study.curves = ("loss",)
    return study

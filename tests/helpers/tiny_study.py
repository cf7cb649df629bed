"""The smallest study that goes through everything: --config=tests/helpers/tiny_study.py.

:tokenizer is one of a tokenizer alone, at two steps.
"""

from maskgil_jax import study_config
from tests.helpers import tiny


def get_config(stage=""):
    return of_tokenizer() if stage else of_generator()


def of_tokenizer():
    study = study_config.study(tiny.tokenizer())
    study.axes = dict(at_step=(2, 6))
    study.curves = ("psnr",)
    study.measure.update(reference="embedded:test", num=20, batch_size=20)
    return study


def of_generator():
    base = tiny.get_config().unlock()
    base.stages.generator.evaluation.reference = ""
    base.stages.generator.keep_checkpoints = 1
    study = study_config.study(base)
    study.axes = dict(rope=("2d", "1d"), at_step=(3, 6), guidance=(1.0, 2.0))
    study.order = ("rope", "at_step", "guidance")
    study.fields = dict(rope="generator.model.rope")
    study.changes = dict(size=dict(wide=dict(generator=dict(model=dict(dim=48)))))
    study.decoding = dict(steps=2)
    study.curves = ("loss",)
    study.measure.update(reference="embedded:test", num=24, batch_size=8, codes="embedded:test")
    study.measure.update(metrics=("frechet",), logged=("loss",))
    return study

"""Every field of a study, and the runs that the studies of configs/studies vary.

A study (python -m maskgil_jax.study) is a config of runs, and axes along which it varies: every
combination of their values is a cell, which is trained, where no other cell has, and measured.
"""

from ml_collections import ConfigDict

from maskgil_jax import config as defaults
from maskgil_jax.runtime import config_files
from maskgil_jax.runtime.errors import InputError

EPOCH = 1_281_167 // 256  # steps of ImageNet


def study(base: ConfigDict) -> ConfigDict:
    """A study of the runs of a config.

    Args:
      base: with one stage, or with several, of which each becomes a run of its own: its directory
        stands for `{workdir}/NAME` in the stages after it.
    """
    return ConfigDict(
        dict(
            base=base,
            axes={},  # NAME=(VALUE, ...), in the order of tables and figures. A NAME is one of
            # `fields` or of `changes`, a flag of decoding such as guidance, at_step, or at_epoch
            order=(),  # of the axes, the slowest first; (): by their names
            fields={},  # AXIS="generator.model.dim": the field, of a stage, that takes its values
            changes={},  # AXIS={VALUE: {STAGE: {section: {field: value}}}}: what a value changes; a
            # section of a whole stage, with its own field `stage`, takes the place of that stage
            epoch_images=0,  # images in an epoch, for the axis at_epoch; 0: those of the source
            decoding={},  # flags of decoding in all cells; what is on an axis comes first
            curves=(),  # columns of the logs that are plotted against the step
            measure=dict(
                reference="",  # images that are compared with; of tokenizers: that are rebuilt
                num=1000,  # images that are drawn, or rebuilt, in a cell
                batch_size=64,  # images at once
                seed=0,  # of the images, and of the masks of the likelihood
                metrics=(),  # as in evaluate; (): the protocol's, or frechet and pr
                protocol="",  # as in evaluate
                inception="",  # Inception directory
                lpips="",  # LPIPS directory
                clip="",  # CLIP directory
                features="",  # MODULE:FUNCTION, as in evaluate; "": none
                codes="",  # images that nothing is trained on (or arrayrecord:DIR), for the
                # likelihood of their codes; "": none
                logged=(),  # columns of the log, at the step of the cell
            ),
        )
    )


def digits() -> ConfigDict:
    """Tokenizer, codes and generator of 16 x 16 handwritten digits, which need no download.

    configs/quickstart.py, but of 8 x 8 tokens, and shorter.
    """
    tokenizer = defaults.tokenizer()
    tokenizer.steps, tokenizer.batch_size = 300, 32
    tokenizer.log_every, tokenizer.checkpoint_every, tokenizer.pictures_every = 20, 100, 300
    tokenizer.data.update(source="embedded", image_size=16, flip=False)  # a mirrored 2 is no digit
    tokenizer.model.update(
        channels=32,
        channel_multipliers=(1, 2),
        res_blocks=1,
        z_channels=32,
        attention=False,
        codebook_size=64,
        dtype="float32",
    )
    tokenizer.discriminator.update(channels=16, layers=2)
    tokenizer.loss.update(perceptual_weight=0.0, adversarial_weight=0.0)  # no weights to download
    tokenizer.optimizer.update(learning_rate=1e-3, warmup_steps=20, schedule="cosine")
    tokenizer.codebook.update(usage_window=8192, restart_every=20)
    tokenizer.evaluation.update(reference="embedded:test", count=360)

    codes = defaults.codes()
    codes.update(tokenizer="{workdir}/tokenizer/model", source="embedded", image_size=16)

    generator = small(defaults.generator())
    return ConfigDict(
        {"stages": {"tokenizer": tokenizer, "codes": codes, "generator": generator}}
    ).lock()


def small(generator: ConfigDict) -> ConfigDict:
    """A generator at the size and the length of that of `digits`, on its codes."""
    generator.steps, generator.batch_size = 900, 64
    generator.log_every, generator.checkpoint_every, generator.pictures_every = 10, 300, 900
    generator.ema_decay = 0.99
    generator.data.update(source="arrayrecord:{workdir}/codes", image_size=16)
    generator.model.update(layers=4, dim=64, heads=4, num_classes=10, dtype="float32")
    generator.optimizer.update(learning_rate=2e-3, warmup_steps=50)
    generator.samples.update(per_class=2, batch_size=20)
    generator.evaluation.update(reference="", per_class=2)
    return generator


def named(name: str) -> ConfigDict:
    """A config that comes with the package, by its name: vq16, or bert_b:halton."""
    config: ConfigDict = config_files.FileParser().parse(name).copy_and_resolve_references()
    return config.unlock()


def tokenizer_of_imagenet(name: str) -> ConfigDict:
    """A published recipe of a tokenizer, by its config's name; LPIPS lies in the folder lpips."""
    config = named(name)
    config.data.source = "tfds:imagenet2012/train"
    config.loss.lpips = "lpips"
    return config


def check_form(form: str) -> None:
    """Raise InputError unless this is a form of the studies of configs/studies."""
    if form not in ("paper", "small"):
        raise InputError(f"{form!r} after the colon, expected paper or small")


def on_codes(generator: ConfigDict, epochs: int = 50) -> ConfigDict:
    """A study of a generator on ImageNet's codes, in the paper's form.

    What it names has to be given: base.data.source, where `tokenize --crops=ten` wrote the codes,
    measure.reference, VIRTUAL_imagenet256_labeled.npz, and measure.inception.
    """
    generator.steps = epochs * EPOCH
    generator.ema_decay = 0.9999
    made = study(generator)
    made.decoding = dict(guidance=2.0)
    made.measure.update(num=50_000, batch_size=256, protocol="adm")
    return made


def on_digits(base: ConfigDict | None = None) -> ConfigDict:
    """A study on handwritten digits, small enough for two cores; base: `digits` unless given."""
    made = study(digits() if base is None else base)
    made.decoding = dict(guidance=2.0)
    made.measure.update(reference="embedded:test", num=500, codes="embedded:test")
    made.measure.metrics = ("frechet", "pr", "accuracy")
    return made

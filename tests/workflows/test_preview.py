"""A wrong value of any field of any stage is refused before the first stage begins."""

import functools
import json

import pytest
from etils import epath

from maskgil_jax import config as defaults
from maskgil_jax.data.formats.embedded import Embedded
from maskgil_jax.pretrained import model_directory
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import preview
from maskgil_jax.workflows.run import run_stages, with_workdir
from tests.helpers import tiny


@pytest.fixture(scope="module", autouse=True)
def once():
    """What is the same in all tests, the digits, is made once."""
    with pytest.MonkeyPatch.context() as patch:
        sources = preview.sources.SOURCES | {"embedded": ("embedded", functools.cache(Embedded))}
        patch.setattr(preview.sources, "SOURCES", sources)
        yield


# Of each field of the generator stage, values that are refused.
GENERATOR = {
    "seed": [-1],
    "steps": [0, -5],
    "batch_size": [0, 12],
    "accumulate_steps": [0, 3],
    "mesh.data": [3, 0],
    "mesh.fsdp": [3],
    "mesh.tensor": [-2],
    "ema_decay": [1.0, -0.1, float("nan")],
    "log_every": [0],
    "checkpoint_every": [0],
    "pictures_every": [0],
    "keep_checkpoints": [0],
    "keep_every": [-1],
    "keep_every_epochs": [-0.5, float("nan")],
    "keep_steps": [(0,), (1.5,), ("a",)],
    "tracker": ["nowhere:Tracker", "nonsense"],
    "skips_allowed": [-1],
    "data.source": ["", "bucket:x", "folder:/nowhere", "arrayrecord:/nowhere"],
    "data.image_size": [0, 9, 16],
    "data.crop": ["middle"],
    "data.color": ["p3"],
    "data.resize": ["slow"],
    "data.threads": [0],
    "data.workers": [-1],
    "data.bad_image_limit": [-0.1, 1.5, float("nan")],
    "data.mixture": [(("embedded", 1.0),), ("x",), (("a", 0.0),)],
    "data.buckets": ["x", "lumina"],
    "data.speech": ["/nowhere"],
    "data.features": ["/nowhere"],
    "encoder": ["/nowhere"],
    "model.layers": [0, -1],
    "model.dim": [0, 30],
    "model.heads": [0, 5],
    "model.num_classes": [7, -1],
    "model.feature_dim": [-1, 12],
    "model.condition_tokens": [0, 2],
    "model.preset": ["x", "", "llamagen", "chameleon"],  # of other recipes
    "model.order": ["spiral", "halton"],  # halton is of tokens that are predicted one by one
    "model.rope_positions": ["stretched", "interpolated"],  # interpolated needs a rope_grid
    "model.rope_grid": [(2, 2), (0, 4)],
    "model.factors": [(3, 5), ("a",), (0,)],
    "model.dropout": [1.0, -0.1, float("nan")],
    "model.remat": ["some"],
    "model.unroll": [0],
    "model.dtype": ["float33", "int32"],
    "loss.mask_schedule": ["x"],
    "loss.unmasked_weight": [-1.0],
    "loss.autoregressive_share": [-0.1, 1.5, float("nan")],
    "loss.split": ["half"],
    "loss.label_smoothing": [-0.1, 2.0],
    "loss.condition_dropout": [-0.1, 2.0],
    "loss.distill_guidance": [-1.0, float("nan"), 3.0],
    "loss.one_step": [-0.1, 1.5, float("nan"), 0.4],
    "loss.chunk": [0],
    "start_from.generator": ["/nowhere"],
    "optimizer.algorithm": ["sgd"],
    "optimizer.learning_rate": [-1.0, float("nan"), float("inf")],
    "optimizer.beta1": [1.0, -0.5],
    "optimizer.beta2": [1.0],
    "optimizer.weight_decay": [-1.0],
    "optimizer.clip_norm": [-1.0],
    "optimizer.warmup_steps": [-1],
    "optimizer.schedule": ["x"],
    "optimizer.milestones": [("a",), (2.5,), (-3,)],
    "samples.classes": [0],
    "samples.per_class": [0],
    "samples.steps": [0, 99],
    "samples.guidance": [float("nan")],
    "samples.guidance_form": ["x"],
    "samples.guidance_ramp": ["x"],
    "samples.schedule": ["x"],
    "samples.rule": ["x"],
    "mesh.slices": [3, -1],
    "compiler_options": ["x", "xla_no_such_option=1"],
    "trace": ["x", "5:2", "1:99999"],
    "model.qk_norm": ["x"],
    "model.post_norm": ["x"],
    "model.rope": ["x"],
    "model.condition_position": ["x"],
    "model.condition_rope": ["x"],
    "model.joint_embedding": ["x"],
    "model.mask_logit": ["x"],
    "samples.temperature": [-1.0, float("nan")],
    "samples.temperature_schedule": ["x"],
    "samples.choice_temperature": [-1.0, float("nan")],
    "samples.top_k": [-1],
    "samples.top_p": [0.0, 1.5],
    "samples.batch_size": [0],
    "evaluation.per_class": [0],
    "evaluation.reference": ["folder:/nowhere", "/nowhere.npz", "bucket:x"],
    "evaluation.metrics": [("x",), ("fid",), (1,), ("lpips",)],
    "evaluation.inception": ["/nowhere"],
}
# What no value is wrong of, or what only makes a run differ.
FREE = {
    "stage",
    "tokenizer",
    "data.flip",
    "optimizer.decay_norms",
    "compilation_cache",
}
OTHERS = {
    "tokenizer": {
        "steps": [0],
        "batch_size": [12],
        "data.source": ["folder:/nowhere"],
        "data.image_size": [9],
        "data.crop": ["middle"],
        "model.style": ["x"],
        "model.channels": [48],
        "model.channel_multipliers": [(), (0,), (1.5,), ("a",)],
        "model.quantizer": ["x"],
        "model.codebook_size": [0],
        "model.dtype": ["float33"],
        "discriminator.kind": ["x"],
        "discriminator.layers": [3],
        "loss.reconstruction": ["l3"],
        "loss.adversarial": ["x"],
        "loss.discriminator": ["x"],
        "loss.lpips": [],
        "loss.perceptual_weight": [1.0, -1.0],
        "loss.r1_weight": [-1.0],
        "codebook.restart_every": [-1],
        "codebook.usage_window": [0],
        "start_from.tokenizer": ["/nowhere"],
        "start_from.discriminator": ["/nowhere"],
        "optimizer.schedule": ["x"],
        "samples.count": [0],
        "evaluation.reference": ["folder:/nowhere"],
        "evaluation.count": [0],
    },
    "codes": {
        "tokenizer": ["/nowhere", ""],
        "source": ["folder:/nowhere", ""],
        "image_size": [0, 9],
        "buckets": ["x"],
        "crops": ["x"],
        "views": [0, 3],
        "encoder": ["/nowhere"],
        "features": [True],
        "caption_tokens": [0],
        "seed": [-1],
        "batch_size": [0],
        "shard_size": [0],
        "bad_image_limit": [2.0],
    },
}


def refused(tmp_path, stage, field, value):
    whole = tiny.get_config().unlock()
    section = whole.stages[stage]
    *path, name = field.split(".")
    for part in path:
        section = section[part]
    section[name] = value
    with pytest.raises(InputError) as error:
        run_stages(whole.lock(), epath.Path(tmp_path))
    assert f"stage {stage}: " in str(error.value)
    assert list(tmp_path.iterdir()) == [], f"{field} = {value!r}"
    return str(error.value)


@pytest.mark.parametrize("field", GENERATOR)
def test_a_wrong_value_of_the_last_stage_is_refused_before_the_first(field, tmp_path):
    for value in GENERATOR[field]:
        refused(tmp_path, "generator", field, value)


@pytest.mark.parametrize("stage", OTHERS)
def test_a_wrong_value_of_another_stage_is_refused_too(stage, tmp_path):
    for field, values in OTHERS[stage].items():
        for value in values:
            refused(tmp_path, stage, field, value)


def test_the_table_knows_every_field_of_the_generator():
    def names(config, prefix=""):
        for name, value in config.items():
            inner = f"{prefix}{name}"
            yield from names(value, f"{inner}.") if hasattr(value, "items") else [inner]

    assert {*names(tiny.generator())} == {*GENERATOR} | FREE


def looked_through(config, workdir):
    stages = defaults.stages_of(config)
    last = [*stages][-1]
    directories = {name: workdir if name == last else workdir / name for name in stages}
    filled = {name: with_workdir(stage, workdir) for name, stage in stages.items()}
    preview.check(filled, directories)


def test_what_will_be_made_is_known(tmp_path):
    config = tiny.get_config().unlock()
    looked_through(config, epath.Path(tmp_path))
    config.stages.generator.model.factors = (8, 8)  # of the 64 codes that the tokenizer will have
    looked_through(config, epath.Path(tmp_path))
    config.stages.codes.tokenizer += "/"
    config.stages.generator.data.source += "/"
    config.stages.generator.samples.steps = 16  # of the 4 x 4 tokens that images will be
    looked_through(config, epath.Path(tmp_path))
    del config.stages["codes"]
    generator = config.stages.generator
    generator.data.source, generator.tokenizer = "embedded", "{workdir}/tokenizer/model"
    looked_through(config, epath.Path(tmp_path))
    generator.data.image_size = 9
    with pytest.raises(InputError, match="stage generator: config.data.image_size = 9, expected a"):
        looked_through(config, epath.Path(tmp_path))


def test_a_model_of_captions_needs_shards_of_captions(tmp_path):
    (tmp_path / "gemma").mkdir()
    description = {"class": "gemma", "arguments": {}, "format": model_directory.FORMAT}
    (tmp_path / "gemma" / "model.json").write_text(json.dumps(description))
    config = tiny.get_config().unlock()
    generator = config.stages.generator
    generator.encoder = str(tmp_path / "gemma")
    generator.model.update(feature_dim=8, condition_tokens=3)
    generator.evaluation.metrics = ("frechet",)
    with pytest.raises(InputError, match="but stage codes keeps no captions"):
        looked_through(config, epath.Path(tmp_path))
    config.stages.codes.encoder = str(tmp_path / "gemma")
    looked_through(config, epath.Path(tmp_path))
    config.stages.codes.encoder = "{workdir}/tokenizer/model"
    with pytest.raises(InputError, match="stage codes: config.encoder = .* is not a model dir"):
        looked_through(config, epath.Path(tmp_path))


def test_stages_that_are_twice_or_none_are_refused():
    config = tiny.get_config().unlock()
    config.stages.again = tiny.generator()
    with pytest.raises(InputError, match="stage 'generator' of stages.*, expected each of"):
        defaults.stages_of(config)
    config.stages.again.stage = "x"
    with pytest.raises(InputError, match="stage 'x' of stages.again, expected each of"):
        defaults.stages_of(config)
    config.stages = {}
    with pytest.raises(InputError, match="no stages, expected some of tokenizer"):
        defaults.stages_of(config)

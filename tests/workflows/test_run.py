import json
import shutil

import numpy as np
import pytest
from absl import flags
from etils import epath
from PIL import Image

import maskgil_jax
from maskgil_jax import config as defaults
from maskgil_jax.data import sources
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages
from tests.helpers import commands, random_weights, tiny


def losses_of(workdir):
    return [line["loss"] for line in read_log(workdir)]


def generator_on(workdir):
    """The tiny generator config on the shards of a finished run."""
    config = tiny.generator()
    config.data.source = f"arrayrecord:{workdir}/codes"
    return config


def test_a_run_leaves_models_samples_curves_and_metrics(finished):
    for name in ("curves.png", "samples/grid.png", "tokenizer/samples/reconstructions.png"):
        assert Image.open(finished / name).size[0] > 100
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["samples"]["count"] == 40 and metrics["reference"]["count"] == 1437
    assert 0 <= metrics["metrics"]["pixel_class_accuracy"] <= 1
    assert metrics["real_to_real"]["pixel_class_accuracy"] > 0.9
    psnr = json.loads((finished / "tokenizer" / "metrics.json").read_text())["psnr"]
    assert 3 < psnr < 40
    with np.load(finished / "samples" / "samples.npz") as samples:
        assert samples["arr_0"].shape == (40, 8, 8, 3) and samples["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(samples["labels"], np.repeat(np.arange(10), 4))
    assert list((finished / "tensorboard").glob("events*"))


def test_the_log_has_every_number_of_every_step(finished):
    log = read_log(finished)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    wanted = {
        *("loss", "learning_rate", "gradient_norm", "parameter_norm", "output_norm", "accuracy"),
        *("examples_per_second", "tokens_per_second", "step_seconds", "data_wait_seconds"),
        *("flops_per_second", "goodput", "host_peak_gib"),  # of CPUs no peak is known
    }
    assert wanted <= log[-1].keys() and all(np.isfinite(list(log[-1].values())))
    assert log[-1]["loss"] < log[0]["loss"]


def test_running_a_finished_job_again_changes_nothing(finished):
    before = maskgil_jax.load(finished / "model").logits(np.full((1, 4, 4), 64), [3])
    written = (finished / "model" / "model.json").stat().mtime
    run_stages(tiny.get_config(), finished)
    after = maskgil_jax.load(finished / "model").logits(np.full((1, 4, 4), 64), [3])
    np.testing.assert_array_equal(before, after)
    assert (finished / "model" / "model.json").stat().mtime == written
    assert [line["step"] for line in read_log(finished)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_images_through_a_tokenizer_train_like_a_source(finished, tmp_path):
    config = tiny.generator()
    config.steps, config.evaluation.reference = 2, ""
    config.data.update(source="embedded", image_size=8, crop="center", flip=False)
    config.tokenizer = str(finished / "tokenizer" / "model")
    run_stages(config, epath.Path(tmp_path))
    model = maskgil_jax.load(tmp_path / "model")
    assert model.grid == (4, 4) and model.class_names == tuple("0123456789")


@pytest.fixture
def own(finished, tmp_path):
    """A copy of `finished` that a test may write into."""
    return epath.Path(shutil.copytree(finished, tmp_path / "own"))


def test_another_config_in_the_same_directory_is_refused(own):
    config = tiny.get_config()
    config.stages.generator.optimizer.learning_rate = 0.5
    with pytest.raises(InputError) as error:
        run_stages(config, own)
    assert "stages.generator.optimizer.learning_rate: 0.0001 -> 0.5" in str(error.value)


def test_a_mistake_does_not_claim_the_directory(finished, tmp_path):
    config = generator_on(finished)
    config.steps, config.batch_size, config.evaluation.reference = 1, 12, ""
    with pytest.raises(InputError):
        run_stages(config, epath.Path(tmp_path))
    config.batch_size = 16
    run_stages(config, epath.Path(tmp_path))
    assert len(read_log(tmp_path)) == 1


@pytest.mark.slow
def test_more_steps_are_not_another_config(finished, tmp_path):
    config = generator_on(finished)
    config.steps, config.evaluation.reference = 2, ""
    run_stages(config, epath.Path(tmp_path))
    config.steps = 3
    run_stages(config, epath.Path(tmp_path))
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_run(finished, tmp_path):
    config = generator_on(finished)
    config.optimizer.update(learning_rate=1e30, clip_norm=0.0)
    config.skips_allowed = 2
    with pytest.raises(InputError, match="of 3 steps in a row are not finite, config.skips_allow"):
        run_stages(config, epath.Path(tmp_path))


def folder_of_images(path, classes):
    for name in classes:
        (path / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (20, 20), (60 * i, 0, 0)).save(path / name / f"{i}.png")
    return f"folder:{path}"


BAD = {
    "unknown source": (dict(data=dict(source="bucket:x")), "unknown kind 'bucket'"),
    "no folder": (dict(data=dict(source="folder:/nowhere")), "folder:/nowhere: there is no such"),
    "no shards": (dict(data=dict(source="arrayrecord:/nowhere")), "no index.json there"),
    "class count": (dict(model=dict(num_classes=7)), "has 10 classes, but config.model.num_cl"),
    "batch": (dict(batch_size=12), "config.batch_size = 12 does not divide"),
    "micro-batches": (dict(accumulate_steps=3), "config.accumulate_steps = 3"),
    "mesh": (dict(mesh=dict(fsdp=3)), "does not fit 8 devices"),
    "heads": (dict(model=dict(heads=5)), "config.model: dim = 32 over heads = 5"),
    "preset": (dict(model=dict(preset="x")), "config.model.preset = 'x'"),
    "sampling": (dict(samples=dict(steps=99)), "config.samples: steps = 99, expected 1 to 16"),
    "dtype": (dict(model=dict(dtype="float33")), "config.model: dtype = 'float33', expected one"),
    "no heads": (dict(model=dict(heads=0)), "config.model.heads = 0, expected 1 or more"),
    "a count": (dict(samples=dict(per_class=0)), "config.samples.per_class = 0, expected 1"),
    "no logging": (dict(log_every=0), "config.log_every = 0, expected 1 or more"),
    "reference": (dict(evaluation=dict(reference="folder:/nowhere")), "there is no such folder"),
    "metric": (dict(evaluation=dict(metrics=("fid",))), "metric 'fid' needs inception"),
    "mask schedule": (dict(loss=dict(mask_schedule="x")), "config.loss.mask_schedule = 'x'"),
    "lr schedule": (dict(optimizer=dict(schedule="x")), "config.optimizer.schedule = 'x'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_training_starts(case, finished, tmp_path):
    changes, message = BAD[case]
    config = generator_on(finished)
    config.update(changes)
    with pytest.raises(InputError) as error:
        run_stages(config, epath.Path(tmp_path))
    assert message in str(error.value)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(discriminator=dict(layers=3)), "config.discriminator: layers = 3 leaves no patch"),
        (dict(data=dict(image_size=0)), "config.data.image_size = 0, expected 1 or more"),
        (dict(data=dict(image_size=9)), "config.data.image_size = 9, expected a multiple of 2"),
        (dict(data=dict(crop="middle")), "config.data.crop = 'middle'"),
        (dict(loss=dict(reconstruction="l3")), "config.loss.reconstruction = 'l3'"),
        (dict(loss=dict(discriminator="x")), "config.loss.discriminator = 'x', expected one of"),
        (dict(loss=dict(perceptual_weight=1.0)), "vgg16-397923af.pth"),
        (dict(discriminator=dict(kind="x")), "config.discriminator: kind = 'x'"),
        (dict(discriminator=dict(kind="stylegan"), data=dict(image_size=6)), "a power of 2"),
        (dict(start_from=dict(tokenizer="/nowhere")), "/nowhere"),
        (dict(codebook=dict(restart_every=-1)), "config.codebook.restart_every = -1"),
        (dict(model=dict(channels=48)), "config.model: channels = 48"),
        (dict(evaluation=dict(reference="folder:/nowhere")), "there is no such folder"),
    ],
)
def test_bad_tokenizer_configs_are_named_before_training_starts(changes, message, tmp_path):
    config = tiny.tokenizer()
    config.update(changes)
    with pytest.raises(InputError) as error:
        run_stages(config, epath.Path(tmp_path))
    assert message in str(error.value)
    assert not (tmp_path / "checkpoints").exists()


def test_images_without_a_tokenizer_are_refused(tmp_path):
    config = tiny.generator()
    config.data.source = "embedded"
    with pytest.raises(InputError, match="config.tokenizer is missing"):
        run_stages(config, epath.Path(tmp_path))


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "data" / "cats").mkdir(parents=True)
    config = tiny.tokenizer()
    config.data.source = f"folder:{tmp_path}/data"
    with pytest.raises(InputError, match="no images there"):
        run_stages(config, epath.Path(tmp_path / "run"))


def test_shards_of_another_tokenizer_are_refused(finished, tmp_path):
    import jax

    from maskgil_jax.models.tokenizers.vq import VQTokenizer
    from maskgil_jax.pretrained.loading import Tokenizer

    config = maskgil_jax.load(finished / "tokenizer" / "model").network.config
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(9)))
    Tokenizer(network).save(tmp_path / "other")
    config = generator_on(finished)
    config.tokenizer = str(tmp_path / "other")
    with pytest.raises(InputError, match="but the shards in .* were made with"):
        run_stages(config, epath.Path(tmp_path / "run"))


@pytest.mark.parametrize(
    "name",
    [
        *("vq16.py", "vq8.py", "chameleon_vq.py", "maskgit_vq.py", "maskgit_vq.py:google"),
        *("small_vq.py", "small_vq.py:maskgit_vq_google", "small_vq.py:magvit2"),
        *("small_t2i.py", "small_t2i.py:causal", "small_both.py:masked", "small_both.py:causal"),
        *("magvit2.py", "magvit2.py:128", "b.py", "l.py", "xl.py", "xxl.py", "quickstart.py"),
        *("cifar10.py", "cifar10.py:cpu", "imagenette64.py", "imagenette64.py:cpu"),
        "emoji.py",
    ],
)
def test_the_configs_load_and_refuse_unknown_keys(name):
    values = flags.FlagValues()
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", flag_values=values)
    values(["test", f"--config=configs/{name}"])
    assert defaults.stages_of(values.config)
    with pytest.raises(AttributeError):
        values.config.model_size = 3


def test_a_causal_model_trains_samples_and_loads(causal):
    losses = losses_of(causal)
    assert losses[0] == pytest.approx(np.log(64), abs=0.01) and losses[-1] < losses[0] - 0.1
    assert (causal / "samples" / "grid.png").exists() and (causal / "metrics.json").exists()
    model = maskgil_jax.load(causal / "model")
    assert model.kind == "causal" and model.tokenizer["codebook_size"] == 64


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Features of every embedded training image: two or three tokens that tell the class."""
    folder = tmp_path_factory.mktemp("features")
    source = sources.open_source("embedded")
    for i in range(len(source)):
        record = source[i]
        tokens = np.zeros((2 + i % 2, 12), np.float16)
        tokens[:, record.label] = 1.0
        np.save(folder / f"{record.id}.npy", tokens)
    return folder


def on_features(config, folder):
    config.data.features = str(folder)
    config.model.update(feature_dim=12, condition_tokens=3)
    config.evaluation.metrics = ("frechet",)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked, of shards", "masked, of images", "causal, of shards"])
def test_a_model_of_features_trains_and_samples(kind, finished, features, tmp_path):
    config = tiny.causal_generator(finished) if "causal" in kind else generator_on(finished)
    config = on_features(config, features)
    if "images" in kind:
        config.data.update(source="embedded", image_size=8, crop="center", flip=False)
        config.tokenizer = str(finished / "tokenizer" / "model")
    run_stages(config, epath.Path(tmp_path))
    losses = losses_of(tmp_path)
    assert losses[-1] < losses[0]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["samples"]["count"] == 10 * config.evaluation.per_class
    with np.load(tmp_path / "samples" / "samples.npz") as samples:
        assert samples["class_names"][0] == "digit 0" and len(samples["class_names"]) == 10
    model = maskgil_jax.load(tmp_path / "model")
    assert model.num_classes == 0
    options = {} if model.kind == "causal" else dict(steps=2)
    assert model.sample(np.full((1, 3, 12), 1, np.float32), 0, **options).shape == (1, 4, 4)
    if kind == "masked, of shards":
        given = [f"{features}/digit {i}.npy" for i in (0, 1)]
        out = ("--features=" + ",".join(given), "--num=2", "--steps=2", f"--output={tmp_path}/out")
        done = commands.call("sample", f"--model={tmp_path}/model", *out)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "out" / "samples.npz") as samples:
            assert samples["arr_0"].shape == (4, 8, 8, 3)
            assert samples["labels"].tolist() == [0, 0, 1, 1]
        done = commands.call(
            "sample", f"--model={tmp_path}/model", "--classes=1", f"--output={tmp_path}/o"
        )
        assert done.returncode == 1 and "is conditioned on features" in done.stderr


def test_features_that_do_not_fit_are_named(finished, features, tmp_path):
    config = on_features(generator_on(finished), features)
    config.model.feature_dim = 11
    with pytest.raises(InputError, match="condition of the first image.* are 12 wide, expected 11"):
        run_stages(config, epath.Path(tmp_path))
    config.model.feature_dim = 0
    with pytest.raises(InputError, match="feature_dim = 0: expected one of the first two"):
        run_stages(config, epath.Path(tmp_path))
    config = on_features(generator_on(finished), tmp_path)
    with pytest.raises(InputError, match="condition of the first image, digit 0: .*digit 0.npy"):
        run_stages(config, epath.Path(tmp_path))
    config = on_features(generator_on(finished), features)
    config.model.preset = "besnier"
    with pytest.raises(InputError, match="config.model.feature_dim = 12, which preset besnier"):
        run_stages(config, epath.Path(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["besnier", "maskgit", "halton"])
def test_each_baseline_trains_and_samples(preset, finished, tmp_path):
    config = generator_on(finished)
    config.model.preset, config.evaluation.reference = preset, ""
    config.optimizer.learning_rate = 3e-3
    if preset == "maskgit":
        with pytest.raises(InputError, match="no null condition"):
            run_stages(config, epath.Path(tmp_path / "refused"))
        config.loss.condition_dropout, config.samples.guidance = 0.0, 1.0
    run_stages(config, epath.Path(tmp_path / "run"))
    losses = losses_of(tmp_path / "run")
    assert losses[-1] < losses[0]
    assert (tmp_path / "run" / "samples" / "grid.png").exists()


@pytest.mark.slow
def test_a_flat_folder_trains_samples_and_is_measured_without_a_condition(finished, tmp_path):
    digits = sources.open_source("embedded:test")
    (tmp_path / "flat").mkdir()
    for i in range(40):
        (tmp_path / "flat" / f"{i:02}.png").write_bytes(digits[i].image)
    config = tiny.generator()
    config.tokenizer = str(finished / "tokenizer" / "model")
    config.data.update(source=f"folder:{tmp_path}/flat", crop="center", flip=False)
    config.model.num_classes = 0
    config.evaluation.update(reference="", per_class=8)
    expected = (
        "set --config.samples.guidance=1 and --config.loss.condition_dropout=0 .or, for the 1 "
        "classes of the data, --config.model.num_classes=1"
    )
    with pytest.raises(InputError, match=expected):
        run_stages(config, epath.Path(tmp_path / "run"))
    config.samples.guidance, config.loss.condition_dropout = 1.0, 0.0
    run_stages(config, epath.Path(tmp_path / "run"))
    losses = losses_of(tmp_path / "run")
    assert losses[-1] < losses[0]
    with np.load(tmp_path / "run/samples/samples.npz") as samples:
        assert samples["labels"].tolist() == [0] * 8
        assert samples["class_names"].tolist() == ["unconditional"]
    model = f"--model={tmp_path}/run/model"
    done = commands.call("sample", model, "--num=3", "--steps=2", f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    done = commands.call("sample", model, "--guidance=2", f"--output={tmp_path}/o")
    assert done.returncode == 1 and "this model is unconditional" in done.stderr
    measured = ("--num=20", "--steps=2", f"--reference=folder:{tmp_path}/flat")
    result = f"--output={tmp_path}/m.json"
    done = commands.call("evaluate", model, *measured, "--metrics=frechet", result)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "m.json").read_text())["samples"]["condition"] == "none"

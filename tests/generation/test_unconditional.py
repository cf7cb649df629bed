"""A model without a condition: num_classes = 0 of a LLaMA."""

import jax
import numpy as np
import pytest

from maskgil_jax.data.shards.code_records import CodeRecord
from maskgil_jax.evaluation import likelihood
from maskgil_jax.evaluation import requests as evaluated
from maskgil_jax.evaluation.options import Generating
from maskgil_jax.generation import requests, samplers, sampling
from maskgil_jax.generation.options import Companions, Decoding, SampleOptions
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_llama

MAKERS = {"masked": tiny_llama.masked, "causal": tiny_llama.causal}
STEPS = {"masked": dict(steps=2), "causal": {}}


@pytest.fixture(scope="module", params=MAKERS)
def model(request):
    return MAKERS[request.param](num_classes=0)


def test_it_draws_without_guidance_and_refuses_it(model):
    steps = STEPS[model.kind]
    assert model.is_unconditional and model.num_classes == 0
    condition = model.null_condition(2)
    assert condition.dtype == np.int32 and not condition.any()
    codes = model.sample(condition, 0, **steps)
    assert codes.shape == (2, 3, 4) and (codes[0] != codes[1]).any()
    np.testing.assert_array_equal(codes, model.sample(condition, 0, guidance=1.0, **steps))
    for negative in (None, condition):
        with pytest.raises(InputError, match="guidance of scale 3.0, but this model is uncond"):
            model.sample(condition, 0, negative=negative, guidance=3.0, **steps)
    with pytest.raises(InputError, match="is unconditional: expected 0 for each image"):
        model.sample([0, 1], 0, **steps)
    assert model.logits(codes, condition).shape == (2, 12, 20)


def test_models_with_a_condition_are_not_unconditional():
    of_features = tiny_llama.masked(num_classes=0, feature_dim=7, condition_tokens=2)
    assert not of_features.is_unconditional and not tiny_llama.masked().is_unconditional
    for model in (of_features, tiny_llama.masked()):
        with pytest.raises(InputError, match="the generator has a condition, none is given"):
            requests.of_nothing(model)


def test_images_are_requested_without_a_condition_and_any_other_is_refused(model, tmp_path):
    request = requests.of_nothing(model)
    assert request.labels.tolist() == [0] and list(request.names) == ["unconditional"]
    sampler = samplers.from_options(model, STEPS[model.kind], 0, request.conditions)
    assert sampler(np.zeros(3, int), 0).shape == (3, 3, 4)
    with pytest.raises(InputError, match="is unconditional: expected no classes"):
        requests.of_classes(model, [0])
    with pytest.raises(InputError, match="is unconditional: expected no features"):
        requests.read_features(model, ["x.npy"])
    model.save(tmp_path / "model")
    loaded = loading.load_generator(tmp_path / "model")
    assert loaded.is_unconditional and loaded.kind == model.kind
    common = dict(
        model=str(tmp_path / "model"),
        output="o",
        companions=Companions(),
        decoding=Decoding(),
        processes=Processes(),
    )
    with pytest.raises(InputError, match="classes: the generator is unconditional, expected no"):
        sampling.sample(SampleOptions(**common, classes=(1,)))
    with pytest.raises(InputError, match="does not name its tokenizer"):  # the next question
        sampling.sample(SampleOptions(**common))


def test_it_is_evaluated_without_a_condition():
    model = tiny_llama.masked(num_classes=0)
    generating = Generating(companions=Companions(), decoding=Decoding())
    request, about = evaluated.read_request(model, generating)
    assert not request.of_classes and about == {"condition": "none"}
    with pytest.raises(InputError, match="expected no classes"):
        generating = Generating(classes=(1,), companions=Companions(), decoding=Decoding())
        evaluated.read_request(model, generating)


def test_its_likelihood_does_not_depend_on_labels(model):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 20, (4, 1, 3, 4))
    losses = [
        likelihood.validation(model, [CodeRecord(c, n, "", (8, 8)) for c in codes], 4, 0)
        for n in (0, 3)
    ]
    assert losses[0] == losses[1] and np.isfinite(losses[0]).all()


def test_it_has_one_row_for_its_condition():
    network = tiny_llama.built(num_classes=0)
    assert network.class_embedding.shape == (1, 32)
    dropped = network.drop_condition(np.zeros(2, np.int32), np.array([True, False]))
    assert jax.device_get(dropped).tolist() == [0, 0]

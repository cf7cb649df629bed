"""Images are the same to the bit on any number of devices, and go on with another one."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.decoding import masked_loop, masked_plan
from maskgil_jax.generation import placing, samplers, samples
from maskgil_jax.generation.placing import Devices
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.planning import programs
from maskgil_jax.runtime import each_device, sharding
from maskgil_jax.runtime.errors import InputError
from tests.helpers import tiny_models

LABELS, EACH, ROWS = np.arange(4), 3, 2
OTHERS = dict(settings={"seed": 7}, size=(4, 6), names=["a", "b", "c", "d"], per_label=EACH)


def some_devices(count, rows=ROWS):
    mesh = sharding.make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:count])
    return Devices(mesh, rows)


def sampler_on(devices, model, seed=7, **options):
    conditions = devices.split(samplers.by_class)
    return samplers.sampler(
        devices.placed(model), seed, conditions, devices=devices.count, **options
    )


def write(output, devices, sampler=None, **changes):
    sampler = sampler or sampler_on(devices, tiny_models.masked(), steps=2)
    tokenizer = devices.placed(tiny_models.tokenizer())
    samples.write_samples(
        sampler, tokenizer, output, labels=LABELS, devices=devices, **OTHERS | changes
    )


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """What one device draws."""
    output = tmp_path_factory.mktemp("one")
    write(output, some_devices(1))
    return content(output)


def test_eight_devices_write_the_files_of_one(by_one, tmp_path):
    devices = some_devices(8)
    codes = sampler_on(devices, tiny_models.masked(), steps=2)(np.arange(16) % 4, 0)
    assert len(codes.sharding.device_set) == 8
    assert {shard.data.shape[0] for shard in codes.addressable_shards} == {ROWS}
    write(tmp_path / "out", devices)  # six batches, of which each has a device
    assert content(tmp_path / "out") == by_one


def test_a_draw_goes_on_with_another_number_of_devices(by_one, tmp_path):
    devices, drawn = some_devices(1), []
    sampler = sampler_on(devices, tiny_models.masked(), steps=2)

    def stopping(labels, start):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(start)
        return sampler(labels, start)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", devices, stopping)
    assert len(list((tmp_path / "out").glob("*.png"))) == 2 * ROWS
    write(tmp_path / "out", some_devices(8))
    assert content(tmp_path / "out") == by_one


def test_codes_drawn_token_by_token_are_those_of_one_device():
    labels = np.arange(16) % 4
    eight = sampler_on(some_devices(8), tiny_models.causal(), guidance=2.0)(labels, 5)
    alone = sampler_on(some_devices(1), tiny_models.causal(), guidance=2.0)
    for at in range(0, 16, ROWS):
        found = alone(labels[at : at + ROWS], 5 + at)
        np.testing.assert_array_equal(found, np.asarray(eight)[at : at + ROWS])


def test_memory_splits_what_each_device_draws_alike(by_one, tmp_path, caplog):
    devices = some_devices(8)
    with pytest.raises(InputError) as refused:
        sampler_on(devices, tiny_models.masked(), steps=2, memory=1.0)(np.arange(16) % 4, 0)
    assert "drawing 8 images" in str(refused.value)  # one on each
    needed = refused.value.needed
    sampler = sampler_on(devices, tiny_models.masked(), steps=2, memory=1.2 * needed)
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        write(tmp_path / "out", devices, sampler)
    assert len([line for line in caplog.messages if "so that there are 8 at once" in line]) == 1
    assert content(tmp_path / "out") == by_one


def test_a_directory_of_another_draw_that_was_stopped_is_refused(tmp_path):
    def stopped(labels, start):
        raise KeyboardInterrupt

    devices = Devices(None, ROWS)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, devices, stopped)
    other = dict(settings={"seed": 8}, removes_unfinished=False)
    with pytest.raises(KeyboardInterrupt):  # nothing would be lost
        write(tmp_path, devices, stopped, **other)
    codes = np.zeros((ROWS, 2, 3), int)
    drawn = []

    def once(labels, start):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(start)
        return codes

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, devices, once, **other)
    before = content(tmp_path)
    with pytest.raises(InputError, match="holds 2 of 15 files of another run, .* in seed: expec"):
        write(tmp_path, devices, stopped, removes_unfinished=False)
    assert content(tmp_path) == before


def test_features_of_each_device_are_computed_apart():
    asked = []

    def conditions(labels):
        asked.append(labels.tolist())
        return Features(np.ones((len(labels), 2, 3)) * labels[:, None, None], np.ones((2, 2)) > 0)

    split = some_devices(2).split(conditions)(np.array([3, 1, 4, 1]))
    assert asked == [[3, 1], [4, 1]] and len(split[0].sharding.device_set) == 2
    assert split[0][:, 0, 0].tolist() == [3, 1, 4, 1]


@pytest.mark.parametrize(
    "total, batch_size, rows, count",
    [(50_000, 64, 64, 8), (40, 64, 40, 1), (100, 64, 50, 2), (16, 2, 2, 8), (1, 64, 1, 1)],
)
def test_the_batch_of_a_device_does_not_depend_on_how_many_there_are(
    total, batch_size, rows, count, caplog
):
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        devices = placing.devices_for(total, batch_size)
    assert (devices.rows, devices.count) == (rows, count)
    assert f"{rows} images at once on each device, on {count} of the 8 here" in caplog.text
    assert ("would use all" in caplog.text) == (count < 8)


def test_devices_that_share_a_model_are_said(caplog):
    with caplog.at_level(logging.WARNING, "maskgil_jax"):
        assert placing.devices_for(50_000, 64, 4) == Devices(None, 64)
    assert "tensor=4 uses as many of the 8 devices here" in caplog.text


@pytest.mark.slow
def test_each_device_of_a_tpu_runs_its_kernels_alone_and_exchanges_nothing():
    mesh = sharding.make_mesh(dict(data=-1, fsdp=1, tensor=1), programs.devices_of("v5p:2x2x1"))
    config = LlamaConfig(
        layers=1, dim=128, heads=2, codebook_size=64, num_classes=4, grid=(16, 16), dtype="bfloat16"
    )
    plan, numbers = masked_plan.plan(np.full(8, 256), steps=1, guidance=2.0)

    rows, whole = sharding.batch(mesh), sharding.replicated(mesh)

    def shape(shape, dtype=jnp.int32, layout=rows):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)

    weights = jax.tree.map(
        lambda x: shape(x.shape, x.dtype, whole),
        jax.eval_shape(lambda: Llama(config, jax.random.key(0))),
    )
    of_rows, of_columns, of_all = each_device.ROWS, each_device.COLUMNS, each_device.WHOLE
    layout = masked_plan.Numbers(of_columns, *[of_all] * 5)
    program, static = each_device.of(
        weights,
        8,
        masked_loop.sample_codes,
        (of_all, of_rows, of_rows, layout, of_all, of_rows),
        of_rows,
        plan=plan,
    )
    numbers = jax.tree.map(
        lambda x, spec: shape(x.shape, x.dtype, jax.sharding.NamedSharding(mesh, spec)),
        numbers,
        layout,
    )
    arguments = (
        *(weights, shape((8,)), shape((8, 16, 16)), numbers),
        *(jax.eval_shape(lambda: jax.random.key(0)), shape((8,))),
    )
    with jax.set_mesh(mesh):
        compiled = program.trace(*arguments).lower(lowering_platforms=("tpu",)).compile()
    text = compiled.as_text()
    assert not static and "tpu_custom_call" in text
    assert not {"all-gather", "all-reduce", "all-to-all"} & {*re.findall(r"[a-z]+-[a-z-]+", text)}

"""Devices of several slices, and the mesh over them."""

import logging

import jax
import numpy as np
import pytest

from maskgil_jax.runtime import sharding, slices
from maskgil_jax.runtime.errors import InputError

SHAPE = dict(data=1, fsdp=-1, tensor=2)


def ids(mesh):
    return [[device.id for device in part.flat] for part in mesh.devices]


def test_each_slice_has_the_mesh_and_data_goes_over_all():
    mesh = sharding.make_mesh(SHAPE | {"slices": 2})
    assert dict(mesh.shape) == dict(data=2, fsdp=2, tensor=2)
    numbers = [device.id for device in jax.devices()]
    assert ids(mesh) == [numbers[:4], numbers[4:]]
    assert dict(sharding.make_mesh(SHAPE).shape) == dict(data=1, fsdp=4, tensor=2)
    assert sharding.make_mesh(SHAPE) == sharding.make_mesh(SHAPE | {"slices": 0})


def test_runs_of_devices_that_count_as_slices_are_named_once(caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    slices._say_split.cache_clear()
    for _ in range(2):
        slices.split(jax.devices(), 4)
    assert caplog.messages == [
        "the devices do not say that they are of 4 slices: each run of 2 counts as one"
    ]


@pytest.mark.parametrize(
    "shape, words",
    [
        (dict(slices=3), "config.mesh.slices = 3 does not divide 8 devices"),
        (dict(slices=-1), "config.mesh.slices = -1 does not divide 8 devices"),
        (dict(slices=4, data=2), "does not fit 2 devices of each of 4 slices"),
        (dict(slice=2), "has axes"),
    ],
)
def test_a_mesh_that_does_not_fit_the_slices_is_one_message(shape, words):
    with pytest.raises(InputError, match=words):
        sharding.make_mesh(dict(data=1, fsdp=1, tensor=2) | shape)


@pytest.fixture(scope="module")
def tpus():
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import programs

    return programs.devices_of("2xv5e:4x4")


def test_tpus_say_which_slice_they_are_of_and_the_mesh_is_that_of_jax(tpus):
    from jax.experimental import mesh_utils

    assert [device.slice_index for device in tpus] == 16 * [0] + 16 * [1]
    mesh = sharding.make_mesh(dict(data=2, fsdp=-1, tensor=2), tpus)
    assert dict(mesh.shape) == dict(data=4, fsdp=4, tensor=2)
    expected = mesh_utils.create_hybrid_device_mesh(
        (2, 4, 2), (2, 1, 1), tpus, allow_split_physical_axes=True
    )
    np.testing.assert_array_equal(mesh.devices, expected)
    # Whatever the order in which they are given.
    backwards = sharding.make_mesh(dict(data=2, fsdp=-1, tensor=2, slices=2), tpus[::-1])
    assert {d.slice_index for d in backwards.devices[:2].flat} == {0}


@pytest.mark.parametrize("count", [1, 4])
def test_tpus_of_another_number_of_slices_are_refused(tpus, count):
    with pytest.raises(InputError, match=rf"slices = {count}, but the 32 TPUs are of 2 slices"):
        sharding.make_mesh(dict(data=-1, fsdp=1, tensor=1, slices=count), tpus)

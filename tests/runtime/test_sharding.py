"""The table of shardings."""

import logging

import jax
import pytest
from jax.sharding import PartitionSpec as P

from maskgil_jax.models.token_models import bert, halton, layers
from maskgil_jax.pretrained import networks
from maskgil_jax.runtime import sharding

MESH = jax.sharding.AbstractMesh((1, 4, 2), sharding.AXES)


def state(**shapes):
    return {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}


def test_arrays_are_laid_out_by_the_first_rule_that_matches_their_name():
    layout = sharding.state_shardings(
        {"blocks": state(qkv=(3, 8, 3, 4), scale=(3, 8)), **state(head=(8, 10), count=())}, MESH
    )
    assert layout["blocks"]["qkv"].spec == P(None, "fsdp", None, "tensor")
    assert layout["head"].spec == P("fsdp", None)
    assert layout["blocks"]["scale"].spec == layout["count"].spec == P()


def test_an_axis_that_does_not_divide_a_dimension_is_left_out_and_the_log_says_so_once(caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    uneven = {"blocks": state(qkv=(3, 8, 3, 5)), "moments": state(head=(6, 10))}
    for _ in range(2):
        layout = sharding.state_shardings(uneven, MESH)
    assert layout["blocks"]["qkv"].spec == P(None, "fsdp", None, None)
    assert layout["moments"]["head"].spec == P(None, None)
    assert sorted(caplog.messages) == [
        "mesh axis fsdp = 4 does not divide dimensions of 6 and is left out of: moments/head",
        "mesh axis tensor = 2 does not divide dimensions of 5 and is left out of: blocks/qkv",
    ]


def test_the_log_says_nothing_where_all_axes_divide(caplog):
    caplog.set_level(logging.INFO, "maskgil_jax")
    sharding.state_shardings(state(head=(8, 10), codebook=(7, 3)), MESH)
    assert not caplog.messages


def test_a_matrix_that_no_rule_names_is_an_error():
    with pytest.raises(ValueError, match=r"no sharding rule matches stranger \(4, 4\)"):
        sharding.state_shardings(state(stranger=(4, 4)), MESH)


def planned(topology):
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import programs

    return programs.devices_of(topology)


FREE = dict(data=-1, fsdp=-1, tensor=1)


@pytest.mark.parametrize(
    "topology, width, expected",
    [
        ("v5p:4x4x4", 1536, 16),  # 96 rows, two axes; 32 would be 48 rows and half an axis
        ("v5p:4x8x8", 1536, 32),
        ("v5e:16x16", 1536, 16),
        ("v5p:2x2x1", 1536, 4),
        ("v5e:8x8", 4096, 64),
        ("v5p:4x4x4", 4096, 16),  # 64 would be three axes
    ],
)
def test_fsdp_is_chosen_so_that_chips_hold_whole_tiles_and_axes_are_whole(
    topology, width, expected
):
    devices = planned(topology)
    shape = sharding.with_fsdp(FREE, width, devices)
    mesh = sharding.make_mesh(shape, devices)
    assert dict(mesh.shape) == dict(data=len(devices) // expected, fsdp=expected, tensor=1)


def test_fsdp_is_chosen_on_other_devices_and_with_a_tensor_axis():
    assert sharding.with_fsdp(FREE, 64)["fsdp"] == 4
    assert sharding.with_fsdp(FREE, 0)["fsdp"] == 8
    assert sharding.with_fsdp(FREE, 24)["fsdp"] == 1
    assert sharding.with_fsdp(FREE | dict(tensor=2), 1536)["fsdp"] == 4


def test_a_number_that_leaves_tpus_padded_pieces_is_kept_and_the_log_says_it_once(caplog):
    devices, shape = planned("v5e:8x8"), dict(data=1, fsdp=-1, tensor=1)
    for _ in range(2):
        assert sharding.with_fsdp(shape, 1536, devices) == shape
    assert sharding.with_fsdp(shape, 4096, devices) == shape
    (message,) = caplog.messages
    assert message.startswith(
        "config.mesh.fsdp = 64 splits matrices of 1536 rows into pieces of 24"
    )


@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 4, 1)])
def test_the_split_dimensions_of_heads_are_dimensions_that_they_have(axes):
    shape = dict(layers=1, dim=32, heads=2, mlp_dim=64, codebook_size=64, num_classes=4)
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, axes, strict=True)))
    for config in (
        *(bert.BertConfig(**shape, grid=(4, 4), style=style) for style in ("besnier", "maskgit")),
        halton.HaltonConfig(**shape, grid=(4, 4)),
    ):
        like = jax.eval_shape(lambda c=config: networks.init_network(c, jax.random.key(0)))
        head = layers.head_of(like)
        with jax.set_mesh(mesh):
            split = sharding.split_dimensions(head)
        for leaf, dimension in zip(jax.tree.leaves(head), jax.tree.leaves(split), strict=True):
            assert dimension < leaf.ndim

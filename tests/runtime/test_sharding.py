"""The table of shardings."""

import logging

import jax
import pytest
from jax.sharding import PartitionSpec as P

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

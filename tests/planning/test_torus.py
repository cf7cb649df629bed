"""Where groups of chips lie on the torus, and how fast they exchange over its links."""

import types

import numpy as np
import pytest

from maskgil_jax.planning.chips import CHIPS
from maskgil_jax.planning.collectives import Collective
from maskgil_jax.planning.torus import Torus, layout
from maskgil_jax.runtime import sharding

LINK = CHIPS["v5p"].link_bytes


def torus(*shape, chip="v5p"):
    """Chips numbered along the last axis first."""
    places = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=-1)
    return Torus([types.SimpleNamespace(coords=tuple(p)) for p in places.tolist()], CHIPS[chip])


@pytest.mark.parametrize(
    "shape, chip, group, links",
    [
        ((4, 4, 4), "v5p", range(4), 2),  # a ring along z, both ways
        ((4, 4, 4), "v5p", range(0, 16, 4), 2),  # along y
        ((4, 4, 4), "v5p", range(16), 4),  # a plane: rings along two axes
        ((4, 4, 4), "v5p", range(64), 6),
        ((4, 4, 4), "v5p", range(2), 1),  # neighbours: one link
        ((4, 4, 8), "v5p", range(4), 1),  # half an axis: a line, as fast as its ends
        ((4, 4, 8), "v5p", range(0, 8, 2), 1),  # a ring of every second chip: two share the links
        ((2, 2, 1), "v5p", range(2), 1),  # no whole cube: nothing is linked around
        ((16, 16, 1), "v5e", range(16), 2),
        ((8, 8, 1), "v5e", range(8), 1),
        ((2, 4, 1), "v6e", range(8), 2),  # a box of lines
        ((16, 16, 1), "v6e", [0, 17, 34], 1),  # no box
    ],
)
def test_links_of_a_group(shape, chip, group, links):
    measured = torus(*shape, chip=chip).bandwidth(list(group)) / CHIPS[chip].link_bytes
    assert measured == links


def test_an_exchange_takes_what_its_axis_has_and_at_least_its_hops():
    cube = torus(4, 4, 4)
    along, plane = (tuple(range(4)),), (tuple(range(16)),)
    gather = lambda groups, sent: Collective("all-gather", groups, sent)  # noqa: E731
    assert cube.seconds(gather(along, 18e9)) == pytest.approx(18e9 / (2 * LINK))
    assert cube.seconds(gather(plane, 18e9)) == pytest.approx(18e9 / (4 * LINK))
    assert cube.seconds(gather(along, 10.0)) == pytest.approx(2 * CHIPS["v5p"].hop_seconds)
    summed = Collective("all-reduce", along, 10.0)
    assert cube.seconds(summed) == pytest.approx(4 * CHIPS["v5p"].hop_seconds)
    assert cube.seconds(Collective("all-reduce", ((0,),), 0.0)) == 0


def test_of_several_groups_the_slowest_counts():
    groups = (tuple(range(4)), (0, 5, 10, 15))
    assert torus(4, 4, 4).seconds(Collective("all-gather", groups, 9e9)) == 9e9 / LINK


@pytest.mark.parametrize(
    "topology, fsdp, on",
    [
        ("v5p:4x4x4", 4, {"data": ["y", "z"], "fsdp": ["x"]}),
        ("v5e:16x16", 16, {"data": ["y"], "fsdp": ["x"]}),
        ("v6e:16x16", 4, None),
        ("v5p:4x8x8", 16, None),
        ("v5p:4x4x4", 64, {"fsdp": ["x", "y", "z"]}),
    ],
)
def test_meshes_lie_on_the_torus_also_where_they_split_its_axes(topology, fsdp, on):
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import programs

    devices = programs.devices_of(topology)
    mesh = sharding.make_mesh(dict(data=-1, fsdp=fsdp, tensor=1), devices)
    assert mesh.shape["data"] * fsdp == len(devices) == len(set(mesh.devices.flat))
    laid = layout(mesh, Torus(mesh.devices.flat, CHIPS[topology[:3]]))
    axes = {name: [line["axis"] for line in one["torus"]] for name, one in laid.items()}
    assert all(axes.values()) and (on is None or axes == on)

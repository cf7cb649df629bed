"""Exchanges are counted once, with the chips that take part, in the compiler's own programs."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.planning import collectives, hlo
from maskgil_jax.planning.replica_groups import groups_of
from maskgil_jax.runtime import sharding

PROGRAMS = pathlib.Path(__file__).parent / "programs"


def read(name):
    return hlo.parse((PROGRAMS / name).read_text())


def counts(program, devices):
    return [
        (one.kind, asynchronous, one.chips, one.groups[0][:2], one.sent_bytes)
        for one, asynchronous, _ in collectives.counted(program, devices)
    ]


def test_an_asynchronous_exchange_is_counted_at_its_start_alone():
    """By hand: bfloat16 weights [1536, 3 x 1536] and [1536, 1536], float32 gradient of the head."""
    assert counts(read("v5e_asynchronous.hlo"), 256) == [
        ("all-gather", False, 16, (0, 1), 1536 * 3 * 1536 * 2 * 15 / 16),
        ("all-gather", True, 16, (0, 1), 1536 * 1536 * 2 * 15 / 16),
        ("reduce-scatter", False, 16, (0, 1), 1536 * 16384 * 4 * 15 / 16),
    ]


def test_the_parts_of_an_asynchronous_exchange_know_each_other():
    program = read("v5e_asynchronous.hlo")
    entry = program.computations[program.entry].values()
    found = [(p.name, p.key) for one in entry for p in collectives.phases(program, one, 256)]
    key = "chain 0"
    assert [name for name, k in found if k == key] == ["start", "step", "step", "done"]
    assert [name for name, k in found if k != key] == ["whole", "whole"]


def test_what_waits_is_not_asynchronous_and_groups_are_read_in_every_form():
    """By hand: of 64 chips 4 along fsdp are neighbours in number, 16 along data 4 apart."""
    assert counts(read("v5p_waiting.hlo"), 64) == [
        ("all-gather", False, 4, (0, 1), 1536 * 1536 * 2 * 3 / 4),
        ("reduce-scatter", False, 4, (0, 1), 1536 * 16384 * 4 * 3 / 4),
        ("all-reduce", False, 64, (0, 1), 4 * 64 * 4 * 2 * 63 / 64),
        ("all-reduce", False, 4, (0, 1), 128 * 4 * 2 * 3 / 4),
        ("all-reduce", False, 16, (0, 4), 384 * 16384 * 4 * 2 * 15 / 16),
    ]


@pytest.mark.parametrize(
    "written, groups",
    [
        ("replica_groups={{0,2},{1,3}}, x=1", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("dimensions={0}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_as_xla_writes_them(written, groups):
    assert groups_of(written, 4).tolist() == groups


def test_opcodes_of_their_own_start_and_end_an_exchange():
    program = hlo.parse(
        "ENTRY %main (p: bf16[8]) -> bf16[32] {\n"
        "  %s = (bf16[8]{0}, bf16[32]{0}) all-gather-start(%p), replica_groups={{0,1,2,3}}\n"
        "  ROOT %d = bf16[32]{0} all-gather-done(%s)\n"
        "}\n"
    )
    assert counts(program, 4) == [("all-gather", True, 4, (0, 1), 64 * 3 / 4)]
    entry = program.computations["main"].values()
    assert [p.key for one in entry for p in collectives.phases(program, one, 4)] == ["s", "s"]


def test_bytes_of_an_exchange_are_those_of_a_ring():
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import programs

    mesh = sharding.make_mesh(dict(data=1, fsdp=-1, tensor=1), programs.devices_of("v5e:2x2"))
    D = 1024
    by_rows, columns = P(sharding.AXES[1]), P(None, sharding.AXES[1])

    def exchanges(function, *specs):
        arguments = [
            jax.ShapeDtypeStruct((D, D), jnp.bfloat16, sharding=NamedSharding(mesh, spec))
            for spec in specs
        ]
        program = hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())
        return [one for one, _, times in collectives.counted(program, 4) for _ in range(times)]

    def gathered(x, w):  # weights are collected
        return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, by_rows))

    sent = sum(one.sent_bytes for one in exchanges(gathered, by_rows, by_rows))
    assert sent == pytest.approx(2 * D * D * 3 / 4, rel=0.01)

    def summed(x, w):  # partial sums are added up on every chip
        return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, P()))

    (one,) = exchanges(summed, columns, by_rows)
    assert one.kind == "all-reduce" and one.chips == 4
    sizes = [n * D * D * 2 * 3 / 4 for n in (2, 4)]  # in bfloat16 or float32
    assert min(abs(np.array(sizes) - one.sent_bytes)) < 1e4

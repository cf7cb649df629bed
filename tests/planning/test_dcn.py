"""What slices send one another, read from programs that the TPU's compiler makes for them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.planning import collectives, dcn, hlo
from maskgil_jax.runtime import sharding

pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
from maskgil_jax.planning import programs  # noqa: E402

D, ROWS = 1024, 512


def compiled(topology, function, *specs):
    """A program of x [ROWS, D] and w [D, D], with the layouts `specs`, of its result the last."""
    mesh = sharding.make_mesh(dict(data=1, fsdp=-1, tensor=1), programs.devices_of(topology))
    *given, result = [NamedSharding(mesh, spec) for spec in specs]
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=layout)
        for shape, layout in zip([(ROWS, D), (D, D)], given, strict=False)
    ]
    made = jax.jit(function, out_shardings=result).lower(*arguments).compile()
    return hlo.parse(made.as_text())


def gradient(x, w):
    return jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w).astype(jnp.float32) ** 2))(w)


@pytest.mark.parametrize("slices, chips", [(2, 4), (4, 4)])
def test_of_a_gradient_each_chip_exchanges_its_own_part_between_slices(slices, chips):
    """With fsdp over a slice: each chip sums 1 / chips of the weights with the other slices."""
    by_rows = P("fsdp", None)
    program = compiled(f"{slices}xv5e:2x2", gradient, sharding.BATCH, by_rows, by_rows)
    (one,) = dcn.transfers(program)
    assert (one.kind, one.slices, one.times) == ("all-reduce", slices, 1)
    assert one.sent_bytes == 2 * (slices - 1) / slices * D * D * 2 / chips
    # Within a slice chips gather weights and sum gradients, and never with those of another.
    inside = [one for one, *_ in collectives.counted(program, chips)]
    assert inside and all(max(sum(one.groups, ())) < chips for one in inside)


def test_what_is_gathered_from_other_slices_is_counted_as_sent_to_all_of_them():
    program = compiled("4xv5e:2x2", lambda x: x * 2, sharding.BATCH, P())
    (one,) = dcn.transfers(program)
    assert (one.kind, one.slices) == ("all-gather", 4)
    assert one.sent_bytes == 3 * (ROWS * D * 2 / 16)


def test_one_slice_sends_nothing_to_others():
    by_rows = P("fsdp", None)
    assert not dcn.transfers(compiled("v5e:2x2", gradient, sharding.BATCH, by_rows, by_rows))

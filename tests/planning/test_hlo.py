"""What is read from a TPU program: how often loops run, what chips exchange."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.planning import hlo
from maskgil_jax.runtime import sharding

libtpu = pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
from maskgil_jax.planning import programs  # noqa: E402


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(dict(data=1, fsdp=-1, tensor=1), programs.devices_of("v5e:2x2"))


def compiled(mesh, function, *shapes, specs=None):
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs or [P()] * len(shapes), strict=True)
    ]
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def cycles(program):
    return sum((one.cycles or 0) * times for one, times in hlo.executions(program))


def layers(reverse=False):
    def run(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights, reverse=reverse)[0]

    return run


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_over_layers_costs_as_many_times_one_layer(mesh, reverse):
    D = 512
    counted = {n: cycles(compiled(mesh, layers(reverse), (D, D), (n, D, D))) for n in (6, 11, 26)}
    assert (counted[26] - counted[11]) / 15 == (counted[11] - counted[6]) / 5 > 0


def test_loops_in_loops_and_their_gradients_are_counted(mesh):
    D, N, M = 256, 5, 7

    def loss(x, weights):
        def outer(x, _):
            return layers()(x, weights), None

        return jax.lax.scan(outer, x, None, length=M)[0].astype(jnp.float32).sum()

    program = compiled(mesh, jax.grad(loss, argnums=1), (D, D), (N, D, D))
    times = {n for one, n in hlo.executions(program) if one.cycles and n > 1}
    assert max(times) == N * M


def test_a_loop_whose_end_is_not_known_is_refused(mesh):
    def until_large(x):
        return jax.lax.while_loop(lambda x: x.sum() < 1e3, lambda x: x * 2, x)

    with pytest.raises(ValueError, match="while"):
        cycles(compiled(mesh, until_large, (256, 256)))


def test_bytes_of_an_exchange_are_those_of_a_ring(mesh):
    D = 1024
    by_rows, columns = P(sharding.AXES[1]), P(None, sharding.AXES[1])

    def gathered(x, w):  # weights are collected
        return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, by_rows))

    program = compiled(mesh, gathered, (D, D), (D, D), specs=[by_rows, by_rows])
    sent = sum(one.sent_bytes for one in hlo.collectives(program, 4))
    assert sent == pytest.approx(2 * D * D * 3 / 4, rel=0.01)

    def summed(x, w):  # partial sums are added up on every chip
        return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, P()))

    program = compiled(mesh, summed, (D, D), (D, D), specs=[columns, by_rows])
    (one,) = hlo.collectives(program, 4)
    assert one.kind == "all-reduce" and one.chips == 4
    sizes = [n * D * D * 2 * 3 / 4 for n in (2, 4)]  # in bfloat16 or float32
    assert min(abs(np.array(sizes) - one.sent_bytes)) < 1e4


def test_a_matrix_product_is_estimated_at_nearly_the_peak(mesh):
    from maskgil_jax.planning.chips import CHIPS

    N = 4096
    estimate = cycles(compiled(mesh, lambda x, y: x @ y, (N, N), (N, N)))
    seconds = estimate / CHIPS["v5e"].clock
    assert 0.9 < 2 * N**3 / seconds / CHIPS["v5e"].flops < 1


@pytest.mark.parametrize("topology, fsdp", [("v6e:16x16", 4), ("v5p:4x8x8", 16), ("v5p:4x4x4", 4)])
def test_meshes_that_split_an_axis_of_the_slice_are_made(topology, fsdp):
    devices = programs.devices_of(topology)
    mesh = sharding.make_mesh(dict(data=-1, fsdp=fsdp, tensor=1), devices)
    assert mesh.shape["data"] * fsdp == len(devices) == len(set(mesh.devices.flat))

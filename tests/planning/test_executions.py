"""How often the loops of a TPU program run."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maskgil_jax.planning import hlo
from maskgil_jax.planning.executions import executions
from maskgil_jax.runtime import sharding

libtpu = pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
from maskgil_jax.planning import programs  # noqa: E402


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(dict(data=1, fsdp=-1, tensor=1), programs.devices_of("v5e:2x2"))


def compiled(mesh, function, *shapes):
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, P()))
        for shape in shapes
    ]
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def cycles(program):
    return sum((one.cycles or 0) * times for one, times in executions(program))


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
    times = {n for one, n in executions(program) if one.cycles and n > 1}
    assert max(times) == N * M


def test_a_loop_whose_end_is_not_known_is_refused(mesh):
    def until_large(x):
        return jax.lax.while_loop(lambda x: x.sum() < 1e3, lambda x: x * 2, x)

    with pytest.raises(ValueError, match="while"):
        cycles(compiled(mesh, until_large, (256, 256)))


def test_a_matrix_product_is_estimated_at_nearly_the_peak(mesh):
    from maskgil_jax.planning.chips import CHIPS

    N = 4096
    estimate = cycles(compiled(mesh, lambda x, y: x @ y, (N, N), (N, N)))
    seconds = estimate / CHIPS["v5e"].clock
    assert 0.9 < 2 * N**3 / seconds / CHIPS["v5e"].flops < 1

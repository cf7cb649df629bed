"""What a kernel does is counted in its trace, and held against the TPU compiler's own schedules."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from maskgil_jax.planning import kernels
from maskgil_jax.planning.chips import CHIPS
from maskgil_jax.planning.kernel_work import work_of

CHIP = CHIPS["v5e"]
N = 128  # rows and columns of a matrix unit, and 16 registers of [8, 128]


def work(kernel, grid=(3, 2), specs=None, chip=CHIP):
    """Of a kernel of x [3 N, N] and w [N, N] that writes something like x."""
    by_row, whole = (
        pl.BlockSpec((N, N), lambda i, j: (i, 0)),
        pl.BlockSpec((N, N), lambda i, j: (0, 0)),
    )
    x, w = jnp.zeros((3 * N, N), jnp.bfloat16), jnp.zeros((N, N), jnp.bfloat16)
    run = pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=specs or [by_row, whole],
        out_specs=by_row,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    )
    (call,) = [e for e in jax.make_jaxpr(run)(x, w).eqns if e.primitive.name == "pallas_call"]
    return work_of(call, chip)


def product(x_ref, w_ref, out_ref):
    out_ref[...] = x_ref[...] @ w_ref[...]


def test_products_count_at_every_point_of_the_grid_and_blocks_when_they_change():
    counted = work(product)
    assert counted.flops == 6 * 2 * N**3
    # Rows stay for both points of the inner axis, the weights throughout.
    assert counted.hbm_bytes == (3 + 1 + 3) * N * N * 2
    assert work(product, chip=CHIPS["v6e"]).flops == 6 * 2 * N * 256 * 256  # its units are larger


def test_exponentials_and_what_is_around_them_are_told_apart():
    def kernel(x_ref, w_ref, out_ref):
        x = x_ref[...].astype(jnp.float32)
        out_ref[...] = (jnp.exp2(x) + x * 2).astype(out_ref.dtype)

    counted = work(kernel)
    assert counted.exponentials == 6 * N * N and counted.flops == 0
    # Widened, raised, doubled and added, and narrowed, two registers to one.
    assert counted.vectors == 6 * N * N * 4.5


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_at_the_points_where_it_is_taken():
    def kernel(x_ref, w_ref, out_ref):
        x = jax.lax.fori_loop(0, 5, lambda _, x: x @ w_ref[...], x_ref[...])

        @pl.when((pl.program_id(1) == 0) & (pl.program_id(0) < 2))
        def first():
            out_ref[...] = x @ w_ref[...]

    assert work(kernel).flops == (6 * 5 + 2) * 2 * N**3


def test_of_a_condition_on_data_the_costlier_branch_counts():
    def kernel(x_ref, w_ref, out_ref):
        x = x_ref[...]
        out_ref[...] = jax.lax.cond(x[0, 0] > 0, lambda: x @ w_ref[...], lambda: x)

    assert work(kernel).flops == 6 * 2 * N**3


def test_a_loop_of_unknown_length_has_no_count():
    def kernel(x_ref, w_ref, out_ref):
        steps = pl.program_id(0) + 1
        out_ref[...] = jax.lax.fori_loop(0, steps, lambda _, x: x @ w_ref[...], x_ref[...])

    with pytest.raises(ValueError, match="how often its loop runs is not known"):
        work(kernel)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
def test_the_count_is_that_of_the_compilers_schedule(topology):
    """Of the kernels of a layer, forward and backward apart.

    A schedule has all branches, of which one is taken, and so more bundles than are executed. Those
    between products wait for their memory, at which the count is less exact.
    """
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    environment = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.planning.schedules_of_kernels", topology],
        env=os.environ | environment | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    compared = json.loads(done.stdout.splitlines()[-1])
    assert [has_products for *_, has_products in compared].count(True) == 2
    for count, schedule, has_products in compared:
        assert (4 / 5 if has_products else 1 / 2) < count / schedule < 6 / 5


@pytest.mark.parametrize(
    "dtype, name",
    [("int32", "s32"), ("uint8", "u8"), ("bfloat16", "bf16"), ("float32", "f32"), ("bool", "pred")],
)
def test_kernels_are_known_by_shapes_as_the_compiler_writes_them(dtype, name):
    def copied(x):
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(lambda x, y: None, out_shape=out, interpret=True)(x)

    (call,) = kernels.calls(jax.make_jaxpr(copied)(jnp.zeros((3, 8), dtype)).jaxpr)
    assert kernels.signature(call) == f"{name}[3,8] -> {name}[3,8]"

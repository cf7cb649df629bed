"""FLOPs are counted with loops and recomputation."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from maskgil_jax.models.token_models import products
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.traced_flops import traced_flops

B, D, N = 4, 8, 3
X, W = jnp.zeros((B, D)), jnp.zeros((N, D, D))
ONE = 2 * B * D * D  # a product of X with one matrix


def count(function, *arguments):
    return traced_flops(jax.jit(function).trace(*arguments).jaxpr.jaxpr)


def layers(x, weights, remat=False):
    def layer(x, w):
        return jnp.sin(x @ w), None

    return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, weights)[0].sum()


def test_a_scan_counts_as_often_as_it_runs():
    assert count(layers, X, W) == N * ONE


def test_a_backward_pass_is_two_products_and_recomputation_one_more():
    assert count(jax.grad(layers, argnums=(0, 1)), X, W) == 3 * N * ONE
    again = lambda x, w: layers(x, w, remat=True)  # noqa: E731
    assert count(jax.grad(again, argnums=(0, 1)), X, W) == 4 * N * ONE


def test_a_kernel_counts_at_every_point_of_its_grid():
    def multiply(x_ref, w_ref, out_ref):
        out_ref[...] = x_ref[...] @ w_ref[0]

    def products(x, weights):
        return pl.pallas_call(
            multiply,
            grid=(N,),
            in_specs=[
                pl.BlockSpec((B, D), lambda i: (0, 0)),
                pl.BlockSpec((1, D, D), lambda i: (i, 0, 0)),
            ],
            out_specs=pl.BlockSpec((B, D), lambda i: (0, i)),
            out_shape=jax.ShapeDtypeStruct((B, N * D), x.dtype),
        )(x, weights)

    assert count(products, X, W) == N * ONE


def test_a_sum_over_devices_counts_all_of_them():
    x, y = jnp.ones((8, 3, 4)), jnp.ones((4, 6))

    def loss(x, y):
        return sum(o.sum() for o in products.product_of_parts(("BSD,DF->BSF",) * 2, (x, x), y))

    def flops():
        return traced_flops(jax.jit(jax.grad(loss, (0, 1))).trace(x, y).jaxpr.jaxpr)

    alone = flops()
    with jax.set_mesh(sharding.make_mesh(dict(data=2, fsdp=2, tensor=2))):
        assert flops() == alone == 6 * 2 * 8 * 3 * 4 * 6


def test_a_convolution_counts_its_kernel_at_every_pixel():
    image, kernel = jnp.zeros((2, 6, 5, 3)), jnp.zeros((3, 3, 3, 7))

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert count(convolve, image, kernel) == 2 * (2 * 6 * 5 * 7) * (3 * 3 * 3)


def test_of_a_condition_the_costlier_branch_counts():
    def choose(flag, x, w):
        return jax.lax.cond(flag, lambda: x @ w, lambda: x)

    assert count(choose, True, X, W[0]) == ONE

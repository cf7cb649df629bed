"""Programs are refused before they run out of memory, and batches are made to fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.runtime import device_memory
from maskgil_jax.runtime.device_memory import TooLarge


def attempt_of(fixed, each, available, tried):
    """An attempt whose program needs `fixed` and `each` for every row."""

    def attempt(batch):
        tried.append(batch)
        if fixed + each * batch > available:
            raise TooLarge(f"drawing {batch}", fixed + each * batch, available)
        return f"{batch} rows"

    return attempt


@pytest.mark.parametrize("wanted", [64, 7, 1000])
@pytest.mark.parametrize("fixed", [0, 100, 1000])
@pytest.mark.parametrize("rows", [0, 1, 5, 20, 63, 2000])
def test_the_batch_fits_and_few_are_compiled(wanted, fixed, rows):
    """`rows` are as many as fit."""
    tried = []
    attempt = attempt_of(fixed, 10, fixed + 10 * rows + 1, tried)
    if not rows:
        with pytest.raises(TooLarge, match="drawing 1 takes"):
            device_memory.largest_batch(attempt, wanted)
        return
    batch, result, refusals = device_memory.largest_batch(attempt, wanted)
    assert result == f"{batch} rows" and batch <= max(rows, wanted)
    assert len(tried) == len(refusals) + 1 <= 4
    # As few parts as the largest that fits would make.
    assert -(-wanted // batch) == -(-wanted // min(rows, wanted))


def test_the_two_wordings_of_the_compiler_of_tpus_are_read():
    message = "Ran out of memory in memory space hbm. Used 184.25G of 95.74G hbm. Exceeded by 88G"
    assert device_memory.refusal(message) == (184.25 * 2**30, 95.74 * 2**30)
    message = "allocation (size=1) would exceed memory: (512.5M) exceeds available HBM (16.00G)"
    assert device_memory.refusal(message) == (512.5 * 2**20, 16 * 2**30)
    assert device_memory.refusal("INVALID_ARGUMENT: no such thing") is None


def test_a_program_runs_within_the_memory_that_its_compiler_says_and_in_no_less():
    function = jax.jit(lambda x: jnp.sort(x, axis=0).sum(axis=0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1000, 50)), jnp.float32)
    with pytest.raises(TooLarge, match="sorting takes .* beside the weights, but 0.00 GiB") as e:
        device_memory.run_within(1.0, "sorting", function, x)
    assert e.value.needed >= 50 * 4
    asked = device_memory._bytes_of.cache_info().misses
    for _ in range(2):
        result = device_memory.run_within(e.value.needed, "sorting", function, x)
        np.testing.assert_array_equal(result, function(x))
    assert function._cache_size() == 1
    # Of a large program that takes half a second, which the calls after the first do not spend.
    assert device_memory._bytes_of.cache_info().misses == asked


def test_where_a_device_does_not_tell_its_memory_nothing_is_compiled_to_ask():
    class Function:
        def __call__(self, x):
            return x

        def lower(self, x):
            raise AssertionError

    x = jnp.ones(3)
    assert device_memory.run_within(None, "", Function(), x) is x

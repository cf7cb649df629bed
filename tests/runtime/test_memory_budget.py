import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskgil_jax.runtime.memory_budget import Budget


def held_at_most(budget, amounts):
    lock, now, most, together = threading.Lock(), 0, 0, 0
    count = 0

    def work(units):
        nonlocal now, most, together, count
        with budget.taken(units):
            with lock:
                now, count = now + units, count + 1
                most, together = max(most, now), max(together, count)
            time.sleep(0.002)
            with lock:
                now, count = now - units, count - 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, amounts))
    return most, together


def test_threads_never_hold_more_than_the_budget():
    most, together = held_at_most(Budget(100), [30, 50, 70, 10] * 25)
    assert 70 <= most <= 100 and together > 1


def test_what_is_larger_goes_alone():
    most, together = held_at_most(Budget(100), [500] * 10)
    assert (most, together) == (500, 1)


def test_small_ones_do_not_wait():
    _, together = held_at_most(Budget(1000), [1] * 64)
    assert together > 1


def test_an_error_gives_back_what_was_taken():
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(KeyError), budget.taken(10):
            raise KeyError
    with budget.taken(10):
        pass

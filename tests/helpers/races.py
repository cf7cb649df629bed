"""Threads that start together."""

import threading

from maskgil_jax.runtime.work_lock import Held


def race(count, enter):
    """How many of so many threads that start together got in."""
    together, got = threading.Barrier(count), []

    def run():
        together.wait()
        try:
            enter()
            got.append(True)
        except Held:
            pass

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(got)

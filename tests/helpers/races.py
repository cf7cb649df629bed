"""Threads that start together."""

import threading

from maskgil_jax.runtime.lock_file import HeldByAnother


def race(count, enter):
    """How many of so many threads that start together got in."""
    together, got = threading.Barrier(count), []

    def run():
        together.wait()
        try:
            enter()
            got.append(True)
        except HeldByAnother:
            pass

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(got)

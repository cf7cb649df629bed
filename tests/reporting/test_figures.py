"""Training curves: their points and their lines."""

import json

from maskgil_jax.reporting import figures


def test_long_logs_are_thinned_and_keep_their_last_step():
    log = [{"step": step, "loss": 1.0} for step in range(1, 2502)]
    points_N2, every = figures.points(log, "loss")
    assert every == 3 and len(points_N2) == 834 and points_N2[-1, 0] == 2501
    assert figures.points(log, "psnr")[0].shape == (0, 2)


def test_lines_of_many_runs_differ():
    styles = [json.dumps(figures.style(i)) for i in range(35)]
    assert len(set(styles)) == 35
    for one, next_one in zip(range(34), range(1, 35), strict=True):
        one, next_one = figures.style(one), figures.style(next_one)
        assert one["color"] != next_one["color"] and one["linestyle"] != next_one["linestyle"]

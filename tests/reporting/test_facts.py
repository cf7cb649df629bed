"""Facts of a training run."""

from maskgil_jax.reporting import facts


def test_time_is_that_of_the_logged_steps():
    log = [{"step": 10, "step_seconds": 2.0}, {"step": 30, "step_seconds": 1.5}, {"step": 40}]
    assert facts.time_in_steps(log) == 50.0
    written = [facts.duration(seconds) for seconds in (12, 240, 7500, 273600)]
    assert written == ["12.0 s", "4.0 min", "2 h 5 min", "3 d 4 h"]

"""Compiled programs are kept, and found again."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as of_jax

from maskgil_jax.runtime import compilation_cache
from maskgil_jax.runtime.errors import InputError

HIT = "/jax/compilation_cache/cache_hits"


@pytest.fixture
def without_the_suites(monkeypatch):
    """JAX without the directory that the suite keeps its programs in; programs of any size."""
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    jax.config.update(options[0], None)
    jax.config.update(options[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    of_jax.reset_cache()


def hits(directory):
    """How many programs are found where one is asked for, which is new to this process."""
    found = []

    def listen(event, **about):
        found.append(event)

    def a_program_to_keep(x):
        return jnp.tanh(x @ x).sum()

    x = jnp.ones((7, 7))
    jax.monitoring.register_event_listener(listen)
    try:
        with compilation_cache.kept(directory):
            assert float(jax.jit(a_program_to_keep)(x)) == pytest.approx(49, rel=1e-3)
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return found.count(HIT)


def entries(directory):
    return sorted(directory.rglob(compilation_cache.ENTRY))


def test_a_program_is_compiled_once_and_then_found(without_the_suites, tmp_path):
    assert hits(str(tmp_path / "a")) == 0
    (kept,) = entries(tmp_path / "a")
    assert "a_program_to_keep" in kept.name
    assert hits(str(tmp_path / "a")) == 1 and entries(tmp_path / "a") == [kept]
    assert hits(str(tmp_path / "b")) == 0
    assert jax.config.jax_compilation_cache_dir is None  # for what comes after the run


def test_what_a_killed_run_was_still_writing_is_not_believed(without_the_suites, tmp_path):
    hits(str(tmp_path))
    (kept,) = entries(tmp_path)
    mark = kept.parent / compilation_cache.IN_USE
    mark.touch()  # as that run leaves it
    kept.write_bytes(kept.read_bytes()[:100])
    os.utime(kept, ns=(mark.stat().st_mtime_ns + 10**6,) * 2)
    assert hits(str(tmp_path)) == 0 and not mark.exists()
    assert hits(str(tmp_path)) == 1


def test_a_killed_run_keeps_what_it_had_written(without_the_suites, tmp_path):
    """The step's program of a preempted run: it takes minutes to compile, and was whole."""
    with compilation_cache.kept(str(tmp_path)):
        jax.jit(lambda x: jnp.cos(x @ x))(jnp.ones((5, 5))).block_until_ready()
        (mark,) = tmp_path.rglob(compilation_cache.IN_USE)
        when = mark.stat().st_mtime_ns
    kept = entries(tmp_path)
    mark.touch()
    os.utime(mark, ns=(when, when))  # as a kill at that moment leaves it
    with compilation_cache.kept(str(tmp_path)):
        assert entries(tmp_path) == kept != []


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_run_that_a_signal_or_an_error_ended_is_not_taken_for_killed(
    end, without_the_suites, tmp_path
):
    with pytest.raises(end), compilation_cache.kept(str(tmp_path)):
        jax.jit(lambda x: jnp.sin(x @ x))(jnp.ones((5, 5))).block_until_ready()
        raise end
    assert entries(tmp_path) and not list(tmp_path.rglob(compilation_cache.IN_USE))


def test_the_directory_that_jax_has_comes_first(without_the_suites, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "users"))
    of_jax.reset_cache()
    hits(str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists() and entries(tmp_path / "users")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "users")


def test_without_a_directory_nothing_is_kept(without_the_suites, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hits("") == hits("") == 0 and not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_one_message(without_the_suites, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="config.compilation_cache = '.*/file/a'"):
        hits(f"{tmp_path}/file/a")


def test_programs_are_kept_in_a_bucket(without_the_suites, bucket):
    where = f"{bucket}/run/compilation_cache"
    assert hits(where) == 0 and hits(where) == 1

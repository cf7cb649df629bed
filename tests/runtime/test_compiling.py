"""Commands say what XLA is compiling, and for how long."""

import dataclasses
import logging
import re
import time

import jax
import jax.numpy as jnp
import pytest

from maskgil_jax.runtime import command, compiling


@pytest.fixture
def slow_compiler(monkeypatch):
    """The compiler of these tests takes half a second, and is said to be slow soon."""
    monkeypatch.setattr(compiling, "PATIENCE", 0.1)
    monkeypatch.setattr(compiling, "EVERY", 0.15)
    original = jax._src.compiler.compile_or_get_cached

    def compile(*arguments, **options):
        time.sleep(0.5)
        return original(*arguments, **options)

    monkeypatch.setattr(jax._src.compiler, "compile_or_get_cached", compile)


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "maskgil_jax"]


def test_a_long_compilation_is_told_while_it_lasts(slow_compiler, caplog):
    argument = jnp.arange(7.0)

    def training_step(x):
        return x * 3 + 1

    with caplog.at_level(logging.INFO, "maskgil_jax"), compiling.announced():
        jax.jit(training_step)(argument)
        after = len(messages(caplog))
        jax.jit(training_step)(argument)  # is compiled already
    told = messages(caplog)
    assert len(told) == after >= 3
    assert all(re.fullmatch(r"compiling training step \.\.\. \d+ s", text) for text in told[:-1])
    assert re.fullmatch(r"compiling training step took [01] s", told[-1])
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        jax.jit(lambda x: x - 5)(argument)  # after the command has ended
    assert len(messages(caplog)) == after


def test_of_what_is_compiled_in_an_instant_nothing_is_said(caplog):
    with caplog.at_level(logging.INFO, "maskgil_jax"), compiling.announced():
        jax.jit(lambda x: x * 2 - 1)(jnp.arange(5.0)).block_until_ready()
    assert not messages(caplog)


def test_a_compilation_that_fails_is_not_told_for_ever(slow_compiler, monkeypatch, caplog):
    def fails(*_, **__):
        time.sleep(0.3)
        raise MemoryError

    argument = jnp.arange(3.0)
    monkeypatch.setattr(jax._src.compiler, "compile_or_get_cached", fails)
    with caplog.at_level(logging.INFO, "maskgil_jax"), compiling.announced():
        with pytest.raises(MemoryError):
            jax.jit(lambda x: x * 4 - 1)(argument)
        told = len(messages(caplog))
        time.sleep(0.4)
    assert len(messages(caplog)) == told >= 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoOptions:
    """None."""


def test_every_command_tells_it(slow_compiler, capsys):
    argument = jnp.arange(3.0)

    def job(_):
        def sample_codes(x):
            return x * 9 - 2

        jax.jit(sample_codes)(argument)

    assert command.run(["x"], NoOptions, job, "A job.") == 0
    assert "compiling sample codes ... 0 s" in capsys.readouterr().err
    assert command.run(["x"], NoOptions, job, "A job.", compiles=False) == 0
    assert "compiling" not in capsys.readouterr().err

"""How every command ends."""

import importlib
import pathlib
import re
import signal

import pytest

from maskgil_jax.runtime import command, usage
from maskgil_jax.runtime.errors import InputError


def ended(monkeypatch, error, **options):
    """The exit code of a command that ends with this error."""

    def main():
        raise error

    codes = []
    monkeypatch.setattr(
        command.app, "run", lambda guarded, flags_parser: codes.append(guarded(["x"]))
    )
    command.run(main, **options)
    return codes[0]


def test_only_what_goes_on_says_so_when_it_is_interrupted(monkeypatch, capsys):
    assert ended(monkeypatch, KeyboardInterrupt(), goes_on=True) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted; run the same command to go on\n"
    assert ended(monkeypatch, KeyboardInterrupt()) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted\n"
    assert ended(monkeypatch, InputError("x is y")) == 1
    assert capsys.readouterr().err == "error: x is y\n"


@pytest.mark.parametrize("name", usage.COMMANDS)
def test_commands_that_keep_nothing_of_their_work_do_not_promise_to_go_on(name):
    text = pathlib.Path(importlib.import_module(f"maskgil_jax.{name}").__file__).read_text()
    (call,) = re.findall(r"^    command\.run\((.*)\)$", text, re.M)
    starts_anew = {"convert", "condition_match", "plan", "report"}
    assert ("goes_on=True" in call) == (name not in starts_anew)

"""How every command starts and ends."""

import dataclasses
import importlib
import logging
import signal

import pytest

from maskgil_jax.runtime import command, usage
from maskgil_jax.runtime.errors import InputError, Interrupted
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int | None = option("of decoding", None, least=1)
    kinds: tuple[str, ...] = option("some", ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    verb: str = option("which", choices=("do", "undo"), positional=True)
    output: str = option("directory")
    ratio: float = option("share", 0.5)
    fast: bool = option("hurry", False)
    order: str = option("of lines", "file", choices=("file", "random"))
    pair: tuple[str, ...] = option("NAME=VALUE", (), repeated=True)
    ids: tuple[int, ...] = option("class ids", ())
    inner: Inner


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    size: int = option("pixels", 8)
    dry_run: bool = option("do nothing", False)
    batch_size: int = option("at once", 1)


def chosen(*arguments):
    """The exit code, and the options that the job got."""
    got = []
    code = command.run(["x", *arguments], Options, got.append, "About.")
    return code, got


def test_options_are_what_the_flags_say(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    flags = [
        "--output=~/a",
        "--steps=3",
        "--kinds=p,~/q",
        "--pair=a=1",
        "--pair=b=2,3",
        "--nofast",
        "--ids=3,7",
    ]
    assert chosen("do", *flags) == (
        0,
        [
            Options(
                verb="do",
                output="/home/me/a",
                pair=("a=1", "b=2,3"),
                ids=(3, 7),
                inner=Inner(steps=3, kinds=("p", "/home/me/q")),
            )
        ],
    )


def test_a_flag_is_known_by_its_name_with_dashes_too(capsys):
    got = []
    assert command.run(["x", "--dry-run", "--batch-size=3"], Nothing, got.append, "") == 0
    assert command.run(["x", "--nodry-run", "--batch-size", "4"], Nothing, got.append, "") == 0
    assert got == [Nothing(dry_run=True, batch_size=3), Nothing(batch_size=4)]
    assert command.run(["x", "--dry-ran"], Nothing, got.append, "") == 1
    assert "--dry-ran: there is no such option" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["do"], "--output is missing (directory)"),
        (["do", "--output="], "--output is missing (directory)"),
        (["--output=a"], "expected one of do, undo before the options"),
        (["redo", "--output=a"], "expected one of do, undo before the options"),
        (["do", "--output=a", "b"], "unexpected arguments ['b']; options are written --name=value"),
        (["do", "--outputs=a"], "--outputs: there is no such option; did you mean --output?"),
        (["do", "--output=a", "--steps=0"], "--steps=0: "),
        (["do", "--output=a", "--steps=many"], "--steps=many: "),
        (["do", "--output=a", "--order=size"], "--order=size: "),
        (["do", "--output=a", "--ratio=x"], "--ratio=x: "),
        (["do", "--output=a", "--ids=3,cat"], "--ids=3,cat: expected whole numbers"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line_and_no_job_is_done(arguments, message, capsys):
    assert chosen(*arguments) == (1, [])
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1
    assert not captured.out


def test_a_command_line_without_the_program_s_name_is_refused(capsys):
    assert command.run(["--size=3"], Nothing, print, "") == 1
    assert "expected the name of the program" in capsys.readouterr().err


def test_help_has_every_option_with_its_default(capsys):
    assert chosen("do", "--help") == (0, [])
    text = capsys.readouterr().out
    assert text.startswith("About.\n")
    for line in ("--output=VALUE", "--[no]fast", "--order=file|random", "share (default: 0.5)"):
        assert line in text


def ended(error, **options):
    """The exit code of a command that ends with this error."""

    def job(_):
        raise error

    return command.run(["x"], Nothing, job, "", **options)


def test_only_what_goes_on_says_so_when_it_is_interrupted(capsys):
    assert ended(KeyboardInterrupt(), goes_on=True) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted; run the same command to go on\n"
    assert ended(KeyboardInterrupt()) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted\n"
    assert ended(Interrupted(signal.SIGTERM, "stopped at step 3")) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped at step 3\n"
    assert ended(InputError("x is y")) == 1
    assert capsys.readouterr().err == "error: x is y\n"


def test_a_bug_is_raised():
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError())


@pytest.mark.parametrize(
    "message, expected",
    [
        ("tokenizer=DIR has 16 codes", "--tokenizer=DIR has 16 codes"),
        ("prompts: no line", "--prompts: no line"),
        ("D names no tokenizer; give tokenizer=DIR", "D names no tokenizer; give --tokenizer=DIR"),
        ("config.tokenizer=3 and config: x", "config.tokenizer=3 and config: x"),
        ("--tokenizer=DIR is there", "--tokenizer=DIR is there"),
        ("my_tokenizer=3, unknown=4", "my_tokenizer=3, unknown=4"),
        ("prompts=tokenizer=1,2: x", "--prompts=tokenizer=1,2: x"),
        ("the tokenizer is gone", "the tokenizer is gone"),
        ("tokenizer = 3", "tokenizer = 3"),
    ],
)
def test_messages_of_the_library_get_the_dashes_of_flags(message, expected):
    assert command.with_dashes(message, ["prompts", "tokenizer"]) == expected


def test_what_is_logged_goes_to_the_terminal_while_the_command_runs(capsys):
    log = logging.getLogger("maskgil_jax")
    before = log.handlers, log.propagate, log.level
    assert command.run(["x"], Nothing, lambda _: log.info("half way, size=8"), "") == 0
    assert capsys.readouterr().err == "half way, --size=8\n"
    assert (log.handlers, log.propagate, log.level) == before


@pytest.mark.parametrize("name", usage.COMMANDS)
def test_commands_that_keep_nothing_of_their_work_do_not_promise_to_go_on(name, monkeypatch):
    promised = []
    monkeypatch.setattr(command, "run", lambda *_, goes_on=False, **__: promised.append(goes_on))
    importlib.import_module(f"maskgil_jax.{name}").main([name])
    forgetful = ("convert", "condition_match", "demo", "inspect", "plan", "report")
    assert promised == [name not in forgetful]

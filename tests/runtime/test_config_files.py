"""The flag --config: what is wrong with a file or a field is said in one line."""

import importlib
import pathlib

import pytest

from maskgil_jax.runtime import config_files
from maskgil_jax.runtime import options as option_flags
from maskgil_jax.runtime.config_files import FileParser
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows.options import RunOptions
from tests.helpers import commands

CONFIGS = sorted(pathlib.Path("configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_config_refuses_what_it_does_not_take(path):
    assert FileParser().parse(str(path))
    with pytest.raises(InputError, match="'nonsense'.* after the colon|after the colon, and"):
        FileParser().parse(f"{path}:nonsense")
    with pytest.raises(InputError, match="after the colon"):
        FileParser().parse(f"{path}:")


@pytest.mark.parametrize(
    "text, message",
    [
        (b"def get_config(:", r"not Python: invalid syntax \(line 1\)"),
        (b"\x89PNG\r\n\x1a\n", "not Python|UnicodeDecodeError"),
        (b"a = 1\0", "not Python|null bytes"),
        (b"x = 1\nimport no_such_module", r"ModuleNotFoundError: No module .*\(line 2\)"),
        (b"raise OSError('no disk')", r"OSError: no disk \(line 1\)"),
        (b"import sys\nsys.exit('bye')", r"SystemExit: bye \(line 2\)"),
        (b"def get_config():\n    return {}['x']", r"KeyError: 'x' \(line 2\)"),
        (b"def get_config(n):\n    return 1 / int(n)", "TypeError: get_config.. missing 1"),
        (
            b"def get_config():\n    raise FileNotFoundError('weights')",
            "FileNotFoundError: weights",
        ),
        (b"def get_config(): pass", "gives a NoneType, expected a config built on"),
        (b"def get_config(): return {}", "gives a dict, expected a config built on"),
        (b"config = 3", r"no function get_config\(\)"),
        (b"get_config = 3", r"no function get_config\(\)"),
        (b"", r"no function get_config\(\)"),
    ],
)
def test_a_file_that_gives_no_config_is_refused_with_the_line(text, message, tmp_path):
    (tmp_path / "x.py").write_bytes(text)
    with pytest.raises(InputError, match=message):
        FileParser().parse(str(tmp_path / "x.py"))


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    for path, found in ((tmp_path, "a folder"), (tmp_path / "x.py", "no file"), ("", "no file")):
        with pytest.raises(InputError, match=f"{found} is there, expected a Python file"):
            FileParser().parse(str(path))


def test_a_config_of_the_package_goes_by_its_name(tmp_path, monkeypatch):
    by_path = [FileParser().parse("configs/b.py"), FileParser().parse("configs/bert_b.py:halton")]
    monkeypatch.chdir(tmp_path)
    assert [FileParser().parse("b"), FileParser().parse("bert_b:halton")] == by_path
    for wrong in ("bertb", "configs/bert_b.py"):
        with pytest.raises(InputError, match="name of a config of the package.*mean bert_b"):
            FileParser().parse(wrong)
    # A file of the user comes before a name of the package.
    (tmp_path / "b").write_text("from maskgil_jax import config\nget_config = config.codes")
    assert FileParser().parse("b").stage == "codes"


def test_print_config_prints_what_would_run_and_nothing_runs(tmp_path):
    options = ("--config=quickstart", "--print_config", "--config.stages.generator.model.dim=64")
    done = commands.call("main", *options, f"--workdir={tmp_path}/RUN")
    assert done.returncode == 0 and not (tmp_path / "RUN").exists()
    fields = dict(line.split(" = ", 1) for line in done.stdout.splitlines())
    assert fields["config.stages.generator.model.dim"] == "64"
    assert fields["config.stages.codes.tokenizer"] == repr(f"{tmp_path}/RUN/tokenizer/model")
    # Every field of every stage, and the names are those by which they are changed.
    values = FileParser().parse("quickstart")
    assert list(fields) == [
        line.partition(" = ")[0]
        for name in ("tokenizer", "codes", "generator")
        for line in config_files.fields(values.stages[name], f"config.stages.{name}.")
    ]
    given = [f"--{name}={value}" for name, value in fields.items() if "'" not in value]
    again = commands.call("main", *options[:2], *given)
    assert again.returncode == 0, again.stderr
    unfilled = dict(line.split(" = ", 1) for line in again.stdout.splitlines())
    assert {k for k in fields if fields[k] != unfilled[k]} == {
        "config.stages.codes.tokenizer",
        "config.stages.generator.data.source",
        *(f"config.stages.{name}.compilation_cache" for name in values.stages),
    }


REFUSED = {
    "main": {
        ("--config=configs/b.py:foo",): "--config=configs/b.py:foo: 'foo' is given after the colon",
        ("--config=configs/b.py", "--config.steps=abc"): "--config.steps=abc: expected a whole num",
        ("--config=configs/b.py", "--config.model={'a': 1}", "--workdir=/x"): "--config.model: exp",
        ("--config=configs/b.py", "--config.dim=8"): "no such field; did you mean --config.model.d",
        ("--config=configs/quickstart.py", "--config.steps=3"): "did you mean --config.stages.gene",
        ("--config.steps=3",): "--config.steps is given without --config=FILE before it",
        ("--config=configs/b.py", "--nope=3"): "--nope: there is no such option; --help lists them",
    },
    "plan": {("--config=configs/t2i_xl.py:2048", "--topology=v5p:4x4x4"): "'2048' after the colon"},
    "scaling": {("--config=configs/bert_b.py:x",): "'x' after the colon, expected one of besnier"},
    "sample": {("--num=many",): "--num=many: ", ("--nums=1",): "did you mean --num?"},
}


@pytest.mark.parametrize("command", REFUSED)
def test_commands_refuse_wrong_flags_with_one_line_and_exit_code_1(command, capsys):
    main = importlib.import_module(f"maskgil_jax.{command}").main
    for options, message in REFUSED[command].items():
        assert main([command, *options]) == 1, options
        captured = capsys.readouterr()
        assert not captured.out and captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("error: ") and message in captured.err


def test_a_command_reads_the_config_of_its_own_call(capsys):
    """One process may run several commands, one after another."""
    flags = ["--config=configs/b.py", "--config.steps=7", "--workdir=/x"]
    for steps in (7, 8):
        flags[1] = f"--config.steps={steps}"
        values = option_flags.flags_of(RunOptions, ["main", *flags])
        values(["main", *flags])
        config = option_flags.parsed(RunOptions, values).config
        assert config.values.steps == steps and config.name == "configs/b.py"

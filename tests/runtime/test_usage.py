"""--help, --version, and the list of commands."""

import importlib
import pathlib
import re
import subprocess
import sys
import time

import pytest

import maskgil_jax.__main__
from maskgil_jax.decoding.masked_options import PRESETS
from maskgil_jax.runtime import usage


def run(name, *arguments):
    """The exit code of a command that runs in this process."""
    return importlib.import_module(f"maskgil_jax.{name}").main([name, *arguments])


def flags_of_readme():
    """The flags that README uses, by command."""
    text = pathlib.Path("README.md").read_text().replace("\\\n", " ").replace("python", "\n")
    found = {name: set() for name in usage.COMMANDS}
    for name, options in re.findall(r"-m maskgil_jax\.(\w+)([^\n`|#;]*)", text):
        found[name] |= set(re.findall(r"--(?:no)?(\w+)", options)) - {"help", "version"}
    return found


@pytest.mark.parametrize("command", usage.COMMANDS)
def test_help_shows_every_flag_of_the_readme_and_no_library_s(command, capsys):
    assert run(command, "--help") == 0
    captured = capsys.readouterr()
    assert not captured.err
    shown = set(re.findall(r"^  --(?:\[no\])?(\w+)", captured.out, re.M))
    assert flags_of_readme()[command] <= shown
    assert not {"alsologtostderr", "pdb", "jax_platforms", "helpfull"} & shown
    assert usage.summary(command) in captured.out


def test_help_is_fast_and_imports_neither_jax_nor_numpy_s_friends():
    commands = ", ".join(f"maskgil_jax.{name}" for name in usage.COMMANDS)
    code = f"import sys, {commands}; assert not {{'jax', 'scipy', 'torch'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "maskgil_jax.evaluate", "--help"], check=True, capture_output=True
    )
    assert time.monotonic() - began < 10  # 1 where nothing else runs


def test_every_module_that_is_a_command_is_listed():
    package = pathlib.Path(usage.__file__).parents[1]
    files = [path for path in package.glob("*.py") if "    command.start(" in path.read_text()]
    assert {path.stem for path in files} == {*usage.COMMANDS, "__main__"}
    for name in usage.COMMANDS:
        assert 5 < len(usage.summary(name)) < 90 and "python -m" not in usage.summary(name)


def test_the_package_lists_its_commands_and_runs_one(capsys):
    package = maskgil_jax.__main__.main
    for arguments in ((), ("--help",)):
        assert package(["maskgil_jax", *arguments]) == 0
        text = capsys.readouterr().out
        configs = [path.stem for path in pathlib.Path("configs").glob("*.py")]
        assert all(f"\n  {name} " in text for name in (*usage.COMMANDS, *configs, *PRESETS))
    assert package(["maskgil_jax", "nope"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no command 'nope'")
    assert package(["maskgil_jax", "sample"]) == 1
    assert capsys.readouterr().err == "error: --model is missing (generator directory)\n"
    assert package(["maskgil_jax", "convert", "import", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Exchange weights")


def test_the_package_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "maskgil_jax", "convert"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("error: expected one of import, export")


def test_version_is_that_of_the_package(capsys):
    for name in ("__main__", "plan", "tokenize"):
        assert run(name, "--version") == 0
        assert capsys.readouterr().out.startswith("maskgil_jax 0.1.0")

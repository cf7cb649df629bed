"""--help, --version, and the list of commands."""

import pathlib
import re
import subprocess
import sys
import time

import pytest

from maskgil_jax.runtime import usage


def run(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)


def flags_of_readme():
    """The flags that README uses, by command."""
    text = pathlib.Path("README.md").read_text().replace("\\\n", " ").replace("python", "\n")
    found = {name: set() for name in usage.COMMANDS}
    for name, options in re.findall(r"-m maskgil_jax\.(\w+)([^\n`|#;]*)", text):
        found[name] |= set(re.findall(r"--(?:no)?(\w+)", options)) - {"help", "version"}
    return found


@pytest.mark.parametrize("command", usage.COMMANDS)
def test_help_shows_every_flag_of_the_readme_and_no_library_s(command):
    began = time.monotonic()
    done = run(f"maskgil_jax.{command}", "--help")
    assert time.monotonic() - began < 10  # 2 where nothing else runs
    assert done.returncode == 0 and not done.stderr
    shown = set(re.findall(r"^  --(?:\[no\])?(\w+)", done.stdout, re.M))
    assert flags_of_readme()[command] <= shown
    assert not {"alsologtostderr", "pdb", "jax_platforms", "helpfull"} & shown
    assert usage.summary(command) in done.stdout


def test_help_imports_neither_jax_nor_numpy_s_friends():
    code = "import sys, maskgil_jax.{0}; assert not {{'jax', 'scipy', 'torch'}} & {{*sys.modules}}"
    for command in ("main", "evaluate", "plan", "scaling"):
        assert run_code(code.format(command)) == 0


def run_code(code):
    return subprocess.run([sys.executable, "-c", code]).returncode


def test_every_module_that_is_a_command_is_listed():
    package = pathlib.Path(usage.__file__).parent.parent
    files = [path for path in package.glob("*.py") if "    command.run(" in path.read_text()]
    assert {path.stem for path in files} == {*usage.COMMANDS}
    for name in usage.COMMANDS:
        assert 5 < len(usage.summary(name)) < 90 and "python -m" not in usage.summary(name)


def test_the_package_lists_its_commands_and_runs_one():
    for arguments in ((), ("--help",)):
        done = run("maskgil_jax", *arguments)
        assert done.returncode == 0 and all(
            f"\n  {name} " in done.stdout for name in usage.COMMANDS
        )
    done = run("maskgil_jax", "nope")
    assert done.returncode == 1 and done.stderr.startswith("error: there is no command 'nope'")
    done = run("maskgil_jax", "sample")
    assert (
        done.returncode == 1 and done.stderr == "error: --model is missing (generator directory)\n"
    )
    assert run("maskgil_jax", "convert", "import", "--help").stdout.startswith("Exchange weights")


def test_version_is_that_of_the_package():
    for arguments in (("maskgil_jax",), ("maskgil_jax.plan",), ("maskgil_jax", "tokenize")):
        done = run(*arguments, "--version")
        assert done.returncode == 0 and done.stdout.startswith("maskgil_jax 0.1.0")

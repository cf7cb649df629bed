"""The rooms of the package: who imports whom, and what an import brings with it."""

import ast
import itertools
import pathlib
import re
import subprocess
import sys

import pytest

from maskgil_jax.runtime import options, usage

PACKAGE = pathlib.Path("maskgil_jax")
# A file imports only from its own room or from rooms to its left.
ROOMS = (
    *("runtime", "metrics", "data", "models", "decoding", "pretrained", "conditioning"),
    *("generation", "training", "evaluation", "workflows", "planning", "reporting"),
)
LONGEST_COMMAND = 100  # lines
# Files of runtime that are about flags, of commands or of git.
MACHINERY = ("command", "config_files", "usage", "version")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Modules of the package that a file imports, anywhere in it, as paths of names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "maskgil_jax":
            for alias in node.names:
                yield (*node.module.split(".")[1:], alias.name)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "maskgil_jax":
                    yield tuple(alias.name.split(".")[1:])


def allowed(path):
    """The rooms that a file may import from."""
    parts = path.relative_to(PACKAGE).parts
    if parts == ("config.py",):
        return ("runtime",)
    if len(parts) == 1:
        return (*ROOMS, "interop")
    if parts[0] == "interop":
        return (*ROOMS[: ROOMS.index("pretrained") + 1], "interop")
    return ROOMS[: ROOMS.index(parts[0]) + 1] + (("interop",) if parts[0] == "workflows" else ())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_from_its_own_room_and_from_those_to_its_left(path):
    knows_configs = path.parts[1] not in ("runtime", "metrics", "data", "models", "decoding")
    for module, *names in imported(path):
        if module == "config":
            assert knows_configs, f"{path} imports maskgil_jax.config"
        else:
            assert module in allowed(path), f"{path} imports {'.'.join([module, *names])}"


def test_every_folder_of_the_package_is_a_room():
    folders = {path.parts[1] for path in FILES if len(path.parts) > 2}
    assert folders == {*ROOMS, "interop"}


def test_no_two_files_import_each_other():
    names = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in FILES}
    arrows = {
        path: {names[m] for found in imported(path) for m in (found, found[:-1]) if m in names}
        for path in FILES
    }
    for one, other in itertools.combinations(FILES, 2):
        assert not (other in arrows[one] and one in arrows[other]), f"{one} and {other}"


def test_no_two_folders_import_each_other():
    arrows = set()
    folders = {path.parent.relative_to(PACKAGE).parts for path in FILES}
    for path in FILES:
        here = path.parent.relative_to(PACKAGE).parts
        for found in imported(path):
            there = max((f for f in folders if found[: len(f)] == f), key=len)
            if here and there and here != there:
                arrows.add((here, there))
    assert not {(a, b) for a, b in arrows if (b, a) in arrows}


@pytest.mark.parametrize("name", usage.COMMANDS)
def test_a_command_holds_flags_and_calls_one_room(name):
    path = PACKAGE / f"{name}.py"
    assert len(path.read_text().splitlines()) <= LONGEST_COMMAND
    functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    assert functions[0].name == "main" and len(functions) == 2


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_library_reads_no_flags_and_advises_none(path):
    text = path.read_text()
    machinery = path.parent.name == "runtime" and path.stem in MACHINERY
    # Grain reads flags of its own, which have to be marked as parsed outside a command of absl's.
    assert "flags.FLAGS" not in text or path.name == "pipeline.py"
    if len(path.parts) == 2 or path.stem == "options" or machinery:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Commands are quoted in full, and fields of configs are changed on the command line.
            others = re.sub(r"maskgil_jax\.\w+[^;\n]*|--config\.", "", node.value)
            found = re.search(r"(?<![\w-])--[a-z_]{2,}\b", others)
            assert not found or "--file_format" in node.value, f"{path}:{node.lineno}"


def in_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ALL_OF_ROOMS = """
import importlib, pathlib, sys
for path in sorted(pathlib.Path("maskgil_jax").rglob("*.py")):
    names = path.with_suffix("").parts
    if names[1] not in ("interop", "__main__"):
        importlib.import_module(".".join(names).removesuffix(".__init__"))
foreign = [name for name in ("torch", "tensorflow", "transformers") if name in sys.modules]
assert not foreign, foreign
"""


def test_nothing_outside_interop_imports_pytorch_or_tensorflow():
    pytest.importorskip("torch", reason="shows nothing where PyTorch is not installed")
    in_new_process(ALL_OF_ROOMS)


def test_metrics_load_neither_scikit_learn_nor_scikit_image():
    in_new_process(
        "import sys, maskgil_jax.metrics\n"
        "assert not {'sklearn', 'skimage', 'torch', 'jax'} & {*sys.modules}, [*sys.modules]"
    )


def test_every_command_has_options_that_say_what_they_mean():
    import importlib

    for name in usage.COMMANDS:
        kind = importlib.import_module(f"maskgil_jax.{name}").Options
        values = options.flags_of(kind)
        assert all(len(values[flag].help) > 3 for flag in values)

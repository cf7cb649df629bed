"""What --help and --version of a command say, and what is said of flags that are none."""

import ast
import difflib
import inspect
import os
import pathlib
import sys
import textwrap
from collections.abc import Mapping

from absl import flags

from maskgil_jax.runtime import version

PACKAGE = "maskgil_jax"
WIDTH = 100
VERSION = ("-version", "--version")
HELP = ("-h", "-help", "--help", "-helpshort", "--helpshort", "-?", "--?")

# What `python -m maskgil_jax` lists, in the order in which a user meets them.
COMMANDS = (
    *(
        "main",
        "inspect",
        "tokenize",
        "sample",
        "edit",
        "demo",
        "reconstruct",
        "evaluate",
        "features",
        "convert",
    ),
    *("compare", "condition_match", "sweep", "scaling", "study", "report", "plan"),
)


def show(text: str) -> int:
    """Print a text, which whoever reads it may stop reading; returns the exit code, 0."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as `| head` leaves it; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def version_text() -> str:
    """`maskgil_jax 0.1.0`, with the commit in a git checkout."""
    return f"{PACKAGE} {version.of_code()}"


def of_command(doc: str, values: flags.FlagValues) -> str:
    """What a command does, and all its flags in the order of their definition."""
    descriptions = [described(values[name]) for name in values]
    about_version = described_text("--version", "what this is")
    return "\n".join([inspect.cleandoc(doc), "", "Options:", *descriptions, about_version])


def described(flag: flags.Flag) -> str:
    """A flag with its help and its default, in lines."""
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=VALUE"
    if isinstance(flag.parser, flags.EnumParser):
        name = f"--{flag.name}={'|'.join(flag.parser.enum_values)}"
    default = str(flag.default_as_str or "").strip("'\"")
    known = flag.default is not None and default and "default:" not in (flag.help or "")
    return described_text(name, f"{flag.help}{f' (default: {default})' if known else ''}")


def described_text(name: str, text: str) -> str:
    """A name, and below it what it means."""
    return f"  {name}\n" + textwrap.fill(
        text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
    )


def of_commands() -> str:
    """The list of all commands."""
    return "\n".join(
        [
            "Masked-autoregressive image generation (MaskGIL) in JAX.",
            "",
            f"python -m {PACKAGE}.COMMAND --help, or maskgil COMMAND --help, says what a command "
            "takes.",
            *listed("The commands:", {name: summary(name) for name in COMMANDS}),
        ]
    )


def listed(title: str, texts: Mapping[str, str]) -> list[str]:
    """Lines of a list: names, and what is said of each."""
    width = max(map(len, texts), default=0) + 2
    return [title, *(f"  {name:{width}}{text}" for name, text in texts.items())]


def summary(name: str) -> str:
    """The first sentence of a command's docstring, without its call."""
    text = first_line(pathlib.Path(__file__).parents[1] / f"{name}.py")
    return text.partition(": python -m")[0].removesuffix(".")


def first_line(file: pathlib.Path) -> str:
    """That of the docstring of a Python file, which is not run."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def complaint(error: Exception, values: flags.FlagValues) -> str:
    """What to say of an error of absl about one of these flags."""
    if isinstance(error, flags.UnrecognizedFlagError):
        near = difflib.get_close_matches(error.flagname, list(values))
        hint = f"did you mean {' or '.join(f'--{name}' for name in near)}?" if near else ""
        return f"--{error.flagname}: there is no such option; {hint or '--help lists them'}"
    if isinstance(error, flags.IllegalFlagValueError):
        return str(error).removeprefix("flag ")
    return str(error)

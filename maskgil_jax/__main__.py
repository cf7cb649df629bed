"""The commands: python -m maskgil_jax lists them, python -m maskgil_jax NAME ... runs one.

Installed, `maskgil NAME ...` is the same.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence

from maskgil_jax.runtime import command, config_files, usage


def main(argv: Sequence[str]) -> int:
    """List commands, configs and decoding presets, or run the command that is named."""
    given = argv[1:]
    if not given or given[0] in usage.HELP:
        return usage.show(listing())
    if given[0] in usage.VERSION:
        return usage.show(usage.version_text())
    if given[0] not in usage.COMMANDS:
        print(f"error: there is no command {given[0]!r}\n\n{usage.of_commands()}", file=sys.stderr)
        return 1
    code: int = importlib.import_module(f"maskgil_jax.{given[0]}").main(given)
    return code


def listing() -> str:
    """Everything that goes by a name."""
    from maskgil_jax.decoding import masked_options

    known = {name: usage.first_line(path) for name, path in config_files.named().items()}
    studies = {name: line for name, line in known.items() if "/" in name}
    configs = {name: line for name, line in known.items() if name not in studies}
    presets = {}
    for name, options in masked_options.PRESETS.items():
        given = {
            field.name: getattr(options, field.name)
            for field in dataclasses.fields(options)
            if field.name == "steps" or getattr(options, field.name) != field.default
        }
        presets[name] = ", ".join(f"{option}={value}" for option, value in given.items())
    return "\n".join(
        [
            usage.of_commands(),
            "",
            *usage.listed("The configs, as in main --config=quickstart:", configs),
            "",
            *usage.listed("The studies, as in study --config=studies/norms:small:", studies),
            "",
            *usage.listed("Published settings of decoding, as in sample --preset=halton:", presets),
        ]
    )


def console() -> None:
    """What the program `maskgil` starts."""
    command.start(main)


if __name__ == "__main__":
    command.start(main)

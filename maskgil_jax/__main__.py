"""The commands: python -m maskgil_jax lists them, python -m maskgil_jax NAME ... runs one."""

import importlib
import sys
from collections.abc import Sequence

from maskgil_jax.runtime import command, usage


def main(argv: Sequence[str]) -> int:
    """List the commands, or run the one that is named."""
    given = argv[1:]
    if not given or given[0] in usage.HELP:
        return usage.show(usage.of_commands())
    if given[0] in usage.VERSION:
        return usage.show(usage.version_text())
    if given[0] not in usage.COMMANDS:
        print(f"error: there is no command {given[0]!r}\n\n{usage.of_commands()}", file=sys.stderr)
        return 1
    code: int = importlib.import_module(f"maskgil_jax.{given[0]}").main(given)
    return code


if __name__ == "__main__":
    command.start(main)

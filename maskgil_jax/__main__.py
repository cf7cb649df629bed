"""The commands: python -m maskgil_jax lists them, python -m maskgil_jax NAME ... runs one."""

import runpy
import sys

from maskgil_jax.runtime import usage


def main(argv: list[str]) -> int:
    """List the commands, or run the one that is named."""
    given = argv[1:]
    if not given or given[0] in usage.HELP:
        return usage.show(usage.of_commands())
    if given[0] in usage.VERSION:
        return usage.show(usage.version())
    if given[0] not in usage.COMMANDS:
        print(f"error: there is no command {given[0]!r}\n\n{usage.of_commands()}", file=sys.stderr)
        return 1
    sys.argv = [f"maskgil_jax.{given[0]}", *given[1:]]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""Names of files as texts that can be printed, stored as JSON, and distinguished.

File systems keep bytes, which need be neither UTF-8 nor free of newlines.
"""

import os
import re
import unicodedata

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_HARD_TO_PRINT = ("Cc", "Zl", "Zp")  # control characters, separators of lines and paragraphs


def printable(name: str) -> str:
    r"""A name or path, with `\xHH` in place of each byte that is not UTF-8 or ends a line.

    Backslashes are written so too, so that names that differ become texts that differ.

    Args:
      name: as os.listdir gives it.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name  # nearly all
    text = os.fsencode(name).decode("utf-8", "surrogateescape")
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character == "\\" or unicodedata.category(character) in (*_HARD_TO_PRINT, "Cs"):
        encoded = character.encode("utf-8", "surrogateescape")
        return "".join(f"\\x{byte:02x}" for byte in encoded)
    return character


def original(text: str) -> str:
    """The name that `printable` made this text of, as os.open takes it."""
    if "\\" not in text:
        return text
    return os.fsdecode(_ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), os.fsencode(text)))

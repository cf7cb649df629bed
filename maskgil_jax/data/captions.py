"""Captions as they lie in text and JSON files beside images."""

import json
from collections.abc import Callable, Iterable

from maskgil_jax.errors import Unreadable

# Text encoders read some hundred tokens; a longer text is a scraped page, not a caption. Counted in
# characters because not every script has spaces between words.
LONGEST = 10_000
LARGEST_FILE = 2**20  # bytes of all captions of an image
FIELDS = ("caption", "captions", "text")


def parse(data: bytes, extension: str) -> tuple[str, ...]:
    """The captions in the bytes of a file, unchecked.

    Args:
      data: of the file.
      extension: key of PARSERS.

    Raises:
      Unreadable: not UTF-8, not JSON, or larger than LARGEST_FILE.
    """
    if len(data) > LARGEST_FILE:
        raise Unreadable(f"its captions take more than {LARGEST_FILE:,} bytes")
    return PARSERS[extension](data)


def decode(data: bytes) -> str:
    """UTF-8, with or without a byte order mark.

    Raises:
      Unreadable: something else.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"its captions are not UTF-8 at byte {error.start}") from None


def checked(captions: Iterable[str]) -> tuple[str, ...]:
    """The captions without those that are empty.

    Raises:
      Unreadable: none is left, or one is longer than LONGEST.
    """
    found = tuple(stripped for caption in captions if (stripped := caption.strip()))
    if not found:
        raise Unreadable("it has no caption")
    longest = max(map(len, found))
    if longest > LONGEST:
        raise Unreadable(f"a caption of {longest:,} characters, expected at most {LONGEST:,}")
    return found


def _lines(data: bytes) -> tuple[str, ...]:
    return tuple(decode(data).splitlines())


def _fields(data: bytes) -> tuple[str, ...]:
    try:
        content = json.loads(decode(data))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"its JSON is broken: {error}") from None
    if not isinstance(content, dict):
        return ()
    values = [content[field] for field in FIELDS if field in content]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return tuple(text for text in texts if isinstance(text, str))


# By extension; where an image has both, the first counts.
PARSERS: dict[str, Callable[[bytes], tuple[str, ...]]] = {"txt": _lines, "json": _fields}

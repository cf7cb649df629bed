"""Captions as they lie in text and JSON files beside images."""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from maskgil_jax.runtime.errors import Unreadable

# Text encoders read some hundred tokens; a longer text is a scraped page, not a caption. Counted in
# characters because not every script has spaces between words.
LONGEST = 10_000
LARGEST_FILE = 2**20  # bytes of all captions of an image
FIELDS = ("caption", "captions", "text")

_LINE_END = re.compile(r"\r\n|\r|\n")
# Neither seen nor said: white space, control characters, and what Unicode calls ignorable by
# default, such as U+200B and U+FEFF, with the blanks that it counts as letters or symbols. Source:
# Unicode 16, DerivedCoreProperties.txt, Default_Ignorable_Code_Point.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)


def lines(text: str) -> list[str]:
    """The lines of a text, which LF, CR LF or CR end.

    Those of str.splitlines would also end at form feeds, separators of ASCII, U+0085 and U+2028,
    which stand within the captions and prompts of some people.
    """
    return _LINE_END.split(text)


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return bool(_INVISIBLE.fullmatch(text))


def first(files: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
    """The captions, unchecked, of the first file of an image that has one.

    Args:
      files: extension and content of each, in the order of PARSERS; read as far as needed.

    Raises:
      Unreadable: as `parse` does.
    """
    for extension, data in files:
        captions = parse(data, extension)
        if not all(map(is_blank, captions)):
            return captions
    return ()


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
        raise Unreadable(f"not UTF-8 at byte {error.start}") from None


def checked(captions: Iterable[str]) -> tuple[str, ...]:
    """The captions without those that are blank.

    Raises:
      Unreadable: none is left, one is longer than LONGEST, or is no text that can be encoded.
    """
    texts = tuple(caption.strip() for caption in captions if not is_blank(caption))
    if not texts:
        raise Unreadable("it has no caption")
    for caption in texts:
        _check(caption)
    return texts


def _check(caption: str) -> None:
    if len(caption) > LONGEST:
        raise Unreadable(f"a caption of {len(caption):,} characters, expected at most {LONGEST:,}")
    if "\0" in caption:
        raise Unreadable("a caption with a NUL character, as of text that is not UTF-8")
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        half = ord(caption[error.start])
        raise Unreadable(f"a caption with U+{half:04X}, which is half a character") from None


def _lines(data: bytes) -> tuple[str, ...]:
    return tuple(lines(decode(data)))


def _fields(data: bytes) -> tuple[str, ...]:
    content = load_json(data, FIELDS)
    return of_fields(content, "JSON field") if isinstance(content, dict) else ()


def of_fields(content: Mapping[str, Any], what: str) -> tuple[str, ...]:
    """The captions, unchecked, in all of FIELDS: texts, or lists of texts.

    Args:
      content: values by the names of fields.
      what: how messages call a field.

    Raises:
      Unreadable: a field holds something else.
    """
    texts: list[str] = []
    for field in FIELDS:
        value = content.get(field)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                texts.append(text)
            elif text is not None:
                kind = type(text).__name__
                raise Unreadable(f"its {what} {field!r} holds a {kind}, expected a text")
    return tuple(texts)


def load_json(data: bytes, fields: Sequence[str]) -> Any:
    """JSON beside an image.

    Args:
      data: of its file.
      fields: that are looked for; an object that has one of them twice is broken, as most readers
        would lose the first.

    Raises:
      Unreadable: not UTF-8, or broken.
    """
    try:
        return json.loads(decode(data), object_pairs_hook=functools.partial(_once, fields))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"its JSON is broken: {error}") from None


def _once(fields: Sequence[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        for field in fields:
            if names.count(field) > 1:
                raise ValueError(f"field {field!r} comes twice")
    return content


# By extension; where an image has both, the first that has a caption counts.
PARSERS: dict[str, Callable[[bytes], tuple[str, ...]]] = {"txt": _lines, "json": _fields}

"""Which members of a tar belong together: an image, its captions, its class, its recording."""

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from maskgil_jax.data.formats.tar_headers import FILE, FOLDER, Member
from maskgil_jax.data.formats.tar_links import Links, is_link
from maskgil_jax.data.records import captions, other_files
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import EXTENSIONS, RECORDINGS

CLASS = "cls"
_IMAGE = "image"
SOUNDS = tuple(extension[1:] for extension in RECORDINGS)
_COMPANIONS = (*captions.PARSERS, CLASS, *SOUNDS)
_KINDS = {extension[1:]: _IMAGE for extension in EXTENSIONS} | {kind: kind for kind in _COMPANIONS}


class TarExample(NamedTuple):
    """An image with what belongs to it.

    Attributes:
      image: its member.
      companions: captions, class and recording, by extension.
      fault, caption_fault: why it, or why its captions cannot be used, or "".
    """

    image: Member
    companions: dict[str, Member]
    fault: str = ""
    caption_fault: str = ""


# A member that is used: its kind (an extension of _COMPANIONS, or _IMAGE); the number of its run,
# which is the same for members that lie together, apart from those of other keys; itself, or what
# it is a link to.
_Entry = tuple[str, int, Member]


def examples_of(
    members: Iterable[Member], links: Links, census: Census, where: str
) -> Iterator[TarExample]:
    """The examples of one tar, in the order of their keys' first members.

    Args:
      members: all of them.
      links: of the file.
      census: counts what is not used.
      where: the file's name, for the census.
    """
    keys = _by_key(members, links, census, where)
    _place_dotted(keys, census, where)
    # As `tar -A` leaves it: members of one key that lie apart may be of different examples.
    joined = any(map(_has_a_name_twice, keys.values()))
    for key, entries in keys.items():
        by_kind = {kind: member for kind, _, member in entries}
        if _IMAGE not in by_kind:
            for _, _, member in entries:
                of_sound = by_kind.keys() <= {*SOUNDS}
                kind = "recording" if of_sound else "captions or class"
                reason = f"{kind} without an image"
                census.pass_over(_name(where, member), reason, is_data=True)
        elif not joined and len(by_kind) == len(entries):
            yield _example(by_kind)
        elif groups := _split(entries):
            for group in groups:
                yield _example({kind: member for kind, _, member in group})
        else:
            fault = (
                f"{len(entries)} members have the key {printable(key)}, in an order that does not "
                "tell which of them belong together"
            )
            faults = ("", fault) if by_kind.keys() == {_IMAGE, "txt"} else (fault, "")
            yield from (TarExample(m, {}, *faults) for kind, _, m in entries if kind == _IMAGE)


def _has_a_name_twice(entries: Sequence[_Entry]) -> bool:
    if len({kind for kind, _, _ in entries}) == len(entries):
        return False  # nearly all
    return len({member.name for _, _, member in entries}) < len(entries)


def fault_of(member: Member) -> str:
    """Why a member cannot be read as a file, or ""."""
    if member.kind == FILE:
        return ""
    if is_link(member):
        target = printable(member.target)
        return f"a {member.kind} to {target}, and this tar has no such file, or several"
    return f"a {member.kind}"


def _name(where: str, member: Member) -> str:
    return f"{where}/{printable(member.name)}"


def _by_key(
    members: Iterable[Member], links: Links, census: Census, where: str
) -> dict[str, list[_Entry]]:
    """The members that are used, by their names without suffix; others are counted."""
    keys: dict[str, list[_Entry]] = {}
    hidden: dict[str, bool] = {}
    run, previous = 0, ""
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.rpartition(".")
        kind = _KINDS.get(suffix) or _KINDS.get(suffix.lower())
        if folder not in hidden:
            hidden[folder] = _is_hidden(folder)
        if (
            not kind
            or not stem
            or base.startswith(other_files.APPLE_DOUBLE)
            or hidden[folder]
            or member.kind == FOLDER
        ):
            reason, is_data = _why_not(member, base, hidden[folder])
            census.pass_over(_name(where, member), reason, is_data=is_data)
            continue
        key = folder + slash + stem
        first = key if "." not in stem else folder + slash + stem.partition(".")[0]
        if first != previous:
            run, previous = run + 1, first
        member = links.follow(member) if is_link(member) else member
        keys.setdefault(key, []).append((kind, run, member))
    return keys


def _is_hidden(folder: str) -> bool:
    return any(
        other_files.is_of_system(name) for name in folder.split("/") if name not in (".", "..")
    )


def _why_not(member: Member, base: str, hidden_folder: bool) -> tuple[str, bool]:
    """Why a member is not used, and whether it may be missed."""
    if member.kind == FOLDER:
        return "folder", False
    if hidden_folder:
        return "in a hidden or system folder", False
    if is_link(member) and "." not in base:
        return "link, perhaps to a folder", True
    return other_files.reason(base)


def _place_dotted(keys: dict[str, list[_Entry]], census: Census, where: str) -> None:
    """Take names with more dots for what WebDataset's convention says, where that is meant.

    Its keys end at the first dot: beside 1.jpg, 1.seg.png is more about the image 1, and no image
    of its own; and 1.rgb.png, if no other image is of the key 1, is the image of 1.txt and 1.cls.
    """
    owners: dict[str, list[str]] = {}
    for key in [key for key in keys if "." in key]:
        folder, slash, base = key.rpartition("/")
        first = folder + slash + base.partition(".")[0]
        if first != key and _has_image(keys[key]):
            owners.setdefault(first, []).append(key)
    for first, dotted in owners.items():
        if _has_image(keys.get(first, [])):
            reason = "more about an image, as 1.seg.png is beside 1.jpg"
            for _, _, member in (entry for key in dotted for entry in keys.pop(key)):
                census.pass_over(_name(where, member), reason, is_data=True)
        elif first in keys and len(dotted) == 1:
            own = {kind for kind, _, _ in keys[dotted[0]]}
            both = keys[dotted[0]] + [entry for entry in keys[first] if entry[0] not in own]
            keys[dotted[0]] = sorted(both, key=operator.itemgetter(1))
            keys[first] = [entry for entry in keys[first] if entry[0] in own]


def _has_image(entries: Sequence[_Entry]) -> bool:
    return any(kind == _IMAGE for kind, _, _ in entries)


def _split(entries: Sequence[_Entry]) -> list[Sequence[_Entry]]:
    """Entries of one key in the order of the tar, those of each example together.

    They come in the same order again and again, as after `tar -A`, or lie apart from one another.
    Otherwise it is not certain what belongs together, and there is no example.
    """
    kinds = [kind for kind, _, _ in entries]
    images = kinds.count(_IMAGE)
    size = len(entries) // images
    if images > 1 and kinds == kinds[:size] * images and len(set(kinds[:size])) == size:
        return [entries[start : start + size] for start in range(0, len(entries), size)]
    runs = [list(run) for _, run in itertools.groupby(entries, operator.itemgetter(1))]
    for run in runs:
        kinds = [kind for kind, _, _ in run]
        if kinds.count(_IMAGE) != 1 or len(set(kinds)) < len(kinds):
            return []
    return [*runs]


def _example(members: dict[str, Member]) -> TarExample:
    image = members.pop(_IMAGE)
    return TarExample(image, members, fault_of(image))

"""Links within a tar: a member that stands for another one."""

import functools
import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from maskgil_jax.data.formats.tar_headers import HARD_LINK, SYMBOLIC_LINK, Member

LONGEST_CHAIN = 40  # of links, as Linux follows
LONGEST_PATH = 4096  # characters


class _Archive(NamedTuple):
    """What links may lead to in one of the tars of a file, by normal path.

    Attributes:
      others: the members that are no links; several, where a name comes more than once.
      targets: of the links; None where a name has several.
    """

    others: dict[str, list[Member]]
    targets: dict[str, str | None]


class Links:
    """Follows links, of which a chain may have several, through linked folders too.

    Args:
      members: gives all members of the tar file; called once, and not before there is a link.
    """

    def __init__(self, members: Callable[[], Iterable[Member]]):
        self._members = members

    @functools.cached_property
    def _archives(self) -> dict[int, _Archive]:
        archives: dict[int, _Archive] = {}
        for member in self._members():
            archive = archives.setdefault(member.archive, _Archive({}, {}))
            name = posixpath.normpath(member.name)
            if is_link(member):
                target = _target(member)
                known = archive.targets.setdefault(name, target)
                archive.targets[name] = target if known == target else None
            else:
                archive.others.setdefault(name, []).append(member)
        return archives

    def follow(self, link: Member) -> Member:
        """What a link leads to, under the name of the link; or the link, if that is not known."""
        archive = self._archives[link.archive]
        path = _end(_target(link), archive.targets)
        candidates = archive.others.get(path, [])
        if link.kind == HARD_LINK and len(candidates) > 1:
            # In joined tars, each with its own: the link was made of the member before it.
            candidates = [member for member in candidates if member.start < link.start][-1:]
        return candidates[0]._replace(name=link.name) if len(candidates) == 1 else link


def is_link(member: Member) -> bool:
    """Whether a member stands for another one."""
    return member.kind in (HARD_LINK, SYMBOLIC_LINK)


def _target(link: Member) -> str:
    """The normal path of a link's target, from where the tar begins, as hard links have it."""
    folder = "" if link.kind == HARD_LINK else posixpath.dirname(link.name)
    return posixpath.normpath(posixpath.join(folder, link.target))


def _end(path: str, targets: Mapping[str, str | None]) -> str:
    """Where a path leads, or "" if in a circle or nowhere."""
    for _ in range(LONGEST_CHAIN):
        if len(path) > LONGEST_PATH:
            return ""
        components = path.split("/")
        heads = ("/".join(components[:count]) for count in range(1, len(components) + 1))
        link = next((head for head in heads if head in targets), None)
        if link is None:
            return path
        target = targets[link]
        if target is None:
            return ""
        path = posixpath.normpath(target + path[len(link) :])
    return ""

"""The census of a data source: what it reads, and what it passes over, by reason and number."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from maskgil_jax.runtime import files
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

NAMED = 3  # examples of each reason, and classes, that a message names


@dataclasses.dataclass
class PassedOver:
    """Things that a source does not use, for one reason.

    Attributes:
      count: of them.
      is_data: whether they look like images, captions or classes that somebody may miss, rather
        than what systems and programs leave behind.
      names: of the first few.
    """

    count: int
    is_data: bool
    names: list[str]


class Census:
    """What one source holds, counted while it is opened.

    Every image that a source sees is one of its records, readable or not, and so counts among its
    examples or its unreadable ones. What is no record is counted here.

    Attributes:
      images: number of records.
      class_names: one per class, in the order of their ids.
      captioned: number of images with captions beside them; None where that is not known before
        they are read.
      passed_over: what is not used, by its reason.
      notes: sentences on how the source was understood, and how to say otherwise.
    """

    def __init__(self, images: int = 0, class_names: Sequence[str] = ()):
        self.images = images
        self.class_names = tuple(class_names)
        self.captioned: int | None = None
        self.passed_over: dict[str, PassedOver] = {}
        self.notes: list[str] = []

    @classmethod
    def from_json(cls, content: Any, class_names: Sequence[str], where: str) -> "Census":
        """What `to_json` made, read again.

        Args:
          content: as it stands in a file.
          class_names: they stand beside it in the file.
          where: the content's name in messages.

        Raises:
          InputError: it is something else; names the field.
        """
        fields: dict[str, files.Types] = {
            "images": int,
            "captioned": (int, type(None)),
            "not_used": dict,
        }
        files.check_object(content, fields, where)
        census = cls(content["images"], class_names)
        census.captioned = content["captioned"]
        for reason, entry in content["not_used"].items():
            place = f"{where}: not_used: {reason}"
            files.check_object(entry, {"count": int, "is_data": bool, "names": list}, place)
            names = list(map(str, entry["names"]))
            census.passed_over[reason] = PassedOver(entry["count"], entry["is_data"], names)
        return census

    def pass_over(self, name: str, reason: str, *, is_data: bool, count: int = 1) -> None:
        """Count something that is not used.

        Args:
          name: of the thing, for messages.
          reason: says in a few words why, as in "hidden folder"; the same for all of a kind.
          is_data: see PassedOver.
          count: of things that the name stands for.
        """
        entry = self.passed_over.setdefault(reason, PassedOver(0, is_data, []))
        entry.count += count
        entry.is_data |= is_data
        if len(entry.names) < NAMED:
            entry.names.append(name)

    def add(self, other: "Census") -> None:
        """Take over the notes on one file of the source, and what of it is not used."""
        self.notes += other.notes
        for reason, entry in other.passed_over.items():
            *some, last = entry.names
            for name in some:
                self.pass_over(name, reason, is_data=entry.is_data)
            rest = entry.count - len(some)
            self.pass_over(last, reason, is_data=entry.is_data, count=rest)

    def missed(self) -> int:
        """Number of things that look like data and are not used."""
        return sum(entry.count for entry in self.passed_over.values() if entry.is_data)

    def summary(self) -> list[str]:
        """Lines for a person: images, classes and captions, then a line for each reason."""
        classes = [_shortened(name) for name in self.class_names[:NAMED]]
        more = ", ..." if len(self.class_names) > NAMED else ""
        images = "1 image" if self.images == 1 else f"{self.images:,} images"
        kinds = "1 class" if len(self.class_names) == 1 else f"{len(self.class_names):,} classes"
        captions = "" if self.captioned is None else f", {self.captioned:,} with captions"
        lines = [f"{images} of {kinds} ({', '.join(classes)}{more}){captions}"]
        lines += [f"  {note}" for note in self.notes]
        lines += [
            f"  not used: {_described(reason, entry)}"
            for reason, entry in sorted(self.passed_over.items())
        ]
        return lines

    def announce(self, name: str) -> None:
        """Log the summary of the source of this name."""
        log.info("%s: %s", name, "\n".join(self.summary()))

    def check_limit(self, name: str, limit: float, option: str) -> None:
        """Refuse that anything is missing where nothing may be.

        Args:
          name: of the source.
          limit: largest share of images that may be left out.
          option: how the user calls the limit.

        Raises:
          InputError: the limit is 0, and something that looks like data is not used.
        """
        if limit > 0 or not self.missed():
            return
        missed = [
            _described(reason, entry)
            for reason, entry in sorted(self.passed_over.items())
            if entry.is_data
        ]
        raise InputError(
            f"data source {name}: {self.missed():,} things that look like data are not used, but "
            f"{option} = 0 allows that of none: {'; '.join(missed)}"
        )

    def to_json(self) -> dict[str, Any]:
        """For the index of code shards and for results."""
        return {
            "images": self.images,
            "captioned": self.captioned,
            "not_used": {
                reason: dataclasses.asdict(entry)
                for reason, entry in sorted(self.passed_over.items())
            },
        }


def _described(reason: str, entry: PassedOver) -> str:
    names = ", ".join(map(_shortened, entry.names))
    more = ", ..." if entry.count > len(entry.names) else ""
    return f"{entry.count:,} ({reason}): {names}{more}"


def _shortened(name: str, longest: int = 120) -> str:
    return name if len(name) <= longest else f"{name[: longest - 3]}..."


def of_shards(counts: Mapping[str, Any], class_names: Sequence[str], where: str) -> Census:
    """What the index of code shards says of the images that they were made of.

    Args:
      counts: the fields of the index beside what the shards are of.
      class_names: one per class.
      where: the index, for messages.

    Raises:
      InputError: they are not what maskgil_jax.tokenize writes; names the field.
    """
    census = Census(0, class_names)
    if "census" in counts:  # not in indices of older versions
        census = Census.from_json(counts["census"], class_names, f"{where}: census")
    files.check_object(counts, {"examples": int}, where)
    census.images = counts["examples"]
    left_out = {"unreadable": 0, "unreadable_images": [], **counts}
    files.check_object(left_out, {"unreadable": int, "unreadable_images": list}, where)
    if left_out["unreadable"]:
        reason = "images that could not be read when they were tokenized"
        names = list(map(str, left_out["unreadable_images"][:NAMED]))
        census.passed_over[reason] = PassedOver(left_out["unreadable"], True, names)
    return census

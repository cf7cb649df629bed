"""What a data source saw: what it reads, and what it passes over, by reason and number."""

import dataclasses
from collections.abc import Sequence
from typing import Any

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
    """

    def __init__(self, images: int = 0, class_names: Sequence[str] = ()):
        self.images = images
        self.class_names = tuple(class_names)
        self.captioned: int | None = None
        self.passed_over: dict[str, PassedOver] = {}

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

    def add(self, part: "Census") -> None:
        """Take over what a part of the source does not use."""
        for reason, entry in part.passed_over.items():
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
        kinds = "1 class" if len(self.class_names) == 1 else f"{len(self.class_names):,} classes"
        captions = "" if self.captioned is None else f", {self.captioned:,} with captions"
        lines = [f"{self.images:,} images of {kinds} ({', '.join(classes)}{more}){captions}"]
        for reason, entry in sorted(self.passed_over.items()):
            names = ", ".join(map(_shortened, entry.names))
            more = ", ..." if entry.count > len(entry.names) else ""
            lines.append(f"  not used: {entry.count:,} ({reason}): {names}{more}")
        return lines

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


def _shortened(name: str, longest: int = 120) -> str:
    return name if len(name) <= longest else f"{name[: longest - 3]}..."

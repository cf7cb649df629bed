"""The limit on the images of a data source that may be unreadable."""

import math


def allowed(total: int, limit: float) -> int:
    """Images that may be unreadable.

    Args:
      total: images of the source.
      limit: share of them, 0 to 1. Unless it is 0, one bad image is always allowed, of which a
        small set has more than a share.
    """
    # Products such as 0.29 * 100 lie just below the whole number that is meant.
    return max(1, math.floor(limit * total + 1e-9)) if limit else 0


def complaint(unreadable: int, total: int, limit: float, field: str) -> str:
    """What to say of too many unreadable images, or "".

    Args:
      unreadable: images that cannot be read.
      total, limit: as in `allowed`.
      field: of the config, or flag, that says the limit.
    """
    if unreadable <= (most := allowed(total, limit)):
        return ""
    return f"{unreadable} of {total} images cannot be read, {field} = {limit:g} allows {most}"

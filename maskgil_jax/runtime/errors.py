"""Errors that commands report in one line instead of a traceback."""


class InputError(ValueError):
    """Something that the user gave does not fit: the input, what was found, what was expected."""


class Unreadable(Exception):
    """An example that training passes over, and counts.

    Args:
      message: what is wrong with it.
      kind: the same in a few words, by which such examples are counted.
    """

    def __init__(self, message: str, kind: str = "unreadable"):
        super().__init__(message)
        self.kind = kind


class Interrupted(Exception):
    """A run was stopped by a signal after its checkpoint was saved."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum

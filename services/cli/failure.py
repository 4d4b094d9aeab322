"""How a command ends other than well, with the exit codes that gh uses."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of `millstream`."""

    OK = 0
    FAILED = 1
    USAGE_OR_CANCELLED = 2
    NOT_SIGNED_IN = 4


class Failed(Exception):
    """What was expected, what was found and what to do; `code` is the exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code

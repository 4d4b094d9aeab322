r"""Regular expressions of users: RE2's syntax, in time and memory that no pattern can exceed.

A pattern has to match a text from end to end. `\w`, `\d`, `\s` and `\b` are those of ASCII; `\pL` is any
letter.
Syntax: https://github.com/google/re2/wiki/Syntax
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

MEMORY_BYTES_MAX = 256 * 1024
"""Of one compiled pattern; RE2 takes as much again to run it. A process keeps 128."""
STEPS_MAX = 1_000_000
"""Characters of a text times instructions of its pattern: some 10 ms."""


class BadPattern(Exception):
    """The text is no pattern, or one that would be too large."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. It takes texts of at most `chars_max` characters."""

    chars_max: int
    _compiled: Any

    def matches(self, text: str) -> bool:
        """Whether the whole text matches; one that is too long does not."""
        return len(text) <= self.chars_max and self._compiled.fullmatch(text) is not None


@lru_cache(maxsize=128)
def compiled(pattern: str) -> Pattern:
    """The pattern, ready to be used. Raises BadPattern with the reason."""
    try:
        found = re2.compile(pattern, _options())
    except re2.error as error:
        (reason,) = error.args
        raise BadPattern(reason.decode(errors="backslashreplace")) from None
    return Pattern(STEPS_MAX // max(found.programsize, 1), found)


def _options() -> Any:
    options = re2.Options()
    options.max_mem = MEMORY_BYTES_MAX
    options.never_capture = True
    options.log_errors = False  # they would go to stderr, pattern included
    return options

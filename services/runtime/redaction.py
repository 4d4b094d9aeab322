"""Known secrets taken out of a text that somebody else wrote."""

from collections.abc import Iterable

MASK = "***"
SHORTEST = 4
"""Values below this length are no secrets, and masking them would shred the text."""
SHORTEST_WORD = 8
"""Likewise for a word within a value: `Bearer` is none."""


def redact(text: str, secrets: Iterable[str]) -> str:
    """Mask each secret, its words (`Bearer x`), and a piece of it that was cut off at the end of the text."""
    values = words(secrets)
    for value in values:
        text = text.replace(value, MASK)
    longest = max((_overlap(text, value) for value in values), default=0)
    return text[: len(text) - longest] + MASK if longest else text


def words(secrets: Iterable[str]) -> list[str]:
    """What to look for: each secret and its longer words, the longest first."""
    whole = {value for value in secrets if len(value) >= SHORTEST}
    values = whole | {word for value in whole for word in value.split() if len(word) >= SHORTEST_WORD}
    return sorted(values, key=len, reverse=True)


def _overlap(text: str, value: str) -> int:
    sizes = range(min(len(value) - 1, len(text)), SHORTEST - 1, -1)
    return next((size for size in sizes if text.endswith(value[:size])), 0)

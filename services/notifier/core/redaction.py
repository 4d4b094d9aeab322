"""What is kept of a receiver's answer: readable, short, and without the secrets we sent it."""

from collections.abc import Iterable

MASK = "***"
SHORTEST = 4
"""Values below this length are no secrets, and masking them would shred the text."""
SHORTEST_WORD = 8
"""Likewise for a word within a value: `Bearer` is none."""


def snippet(body: bytes, content_encoding: str, secrets: Iterable[str]) -> str:
    """The answer as text. A compressed one is not kept: nobody can see what it repeats."""
    if content_encoding.strip().lower() not in ("", "identity"):
        return f"(compressed as {content_encoding[:40]!r}, not kept)"
    text = body.decode("utf-8", "replace").replace("\0", "�")
    return redact(text, secrets)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Mask each secret, its words (`Bearer x`), and a piece of it that was cut off at the end of the text."""
    whole = {value for value in secrets if len(value) >= SHORTEST}
    values = whole | {word for value in whole for word in value.split() if len(word) >= SHORTEST_WORD}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    longest = max((_overlap(text, value) for value in values), default=0)
    return text[: len(text) - longest] + MASK if longest else text


def _overlap(text: str, value: str) -> int:
    sizes = range(min(len(value) - 1, len(text)), SHORTEST - 1, -1)
    return next((size for size in sizes if text.endswith(value[:size])), 0)

"""What is kept of a receiver's answer: readable, short, and without the secrets we sent it."""

from collections.abc import Iterable

from services.runtime.redaction import redact


def snippet(body: bytes, content_encoding: str, secrets: Iterable[str]) -> str:
    """The answer as text. A compressed one is not kept: nobody can see what it repeats."""
    if content_encoding.strip().lower() not in ("", "identity"):
        return f"(compressed as {content_encoding[:40]!r}, not kept)"
    text = body.decode("utf-8", "replace").replace("\0", "�")
    return redact(text, secrets)

"""What an export format is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """`copy_options` go into PostgreSQL's `COPY ... WITH (...)`; `extension` has no dot."""

    extension: str
    content_type: str
    copy_options: bytes

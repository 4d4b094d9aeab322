"""Which executions a list shows, and where one of its pages ends."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

_FOREIGN = "expected a cursor of an earlier page of this very list, with the same filters"


@dataclass(frozen=True, slots=True)
class Filters:
    """Each that is given must hold; instants bound `submitted_at`, the first included, the last not."""

    statuses: tuple[str, ...] = ()
    job_type: str | None = None
    requester: str | None = None
    tag: str | None = None
    submitted_after: datetime | None = None
    submitted_before: datetime | None = None
    pipeline: str | None = None

    def conditions(self) -> tuple[list[str], tuple[Any, ...]]:
        """As conditions of SQL and their values."""
        found = [
            ("state = ANY(%s)", list(self.statuses) or None),
            ("job_type = %s", self.job_type),
            ("principal = %s", self.requester),
            ("tag = %s", self.tag),
            ("submitted_at >= %s", self.submitted_after),
            ("submitted_at < %s", self.submitted_before),
            ("job_type = 'pipeline' AND dataset_id = %s", self.pipeline),
        ]
        given = [(condition, value) for condition, value in found if value is not None]
        return [condition for condition, _ in given], tuple(value for _, value in given)

    def query(self) -> list[tuple[str, str]]:
        """As they stand in a link."""
        single: list[tuple[str, str | None]] = [
            ("job_type", self.job_type),
            ("requester", self.requester),
            ("tag", self.tag),
            ("submitted_after", _text(self.submitted_after)),
            ("submitted_before", _text(self.submitted_before)),
            ("pipeline", self.pipeline),
        ]
        given = [(name, value) for name, value in single if value is not None]
        return [*(("status", status) for status in self.statuses), *given]

    def digest(self) -> str:
        """A short name of exactly these filters."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of the list ends: newest first."""

    submitted_at: datetime
    execution_id: str

    def text(self, filters: Filters) -> str:
        """As it stands in a link: it holds for these filters alone."""
        raw = msgspec.json.encode([self.submitted_at, self.execution_id, filters.digest()])
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @staticmethod
    def parse(text: str, filters: Filters) -> "Cursor":
        """Raises ValueError."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            submitted_at, execution_id, digest = msgspec.json.decode(raw, type=tuple[datetime, str, str])
        except (binascii.Error, msgspec.MsgspecError, UnicodeError) as error:
            raise ValueError(_FOREIGN) from error
        if submitted_at.tzinfo is None or "\0" in execution_id or digest != filters.digest():
            raise ValueError(_FOREIGN)
        return Cursor(submitted_at, execution_id)


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()

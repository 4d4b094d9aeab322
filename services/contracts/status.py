"""The status words: one internal set, and what each surface calls them.

S1 is the data-exhaust API (`GET /job/request/read`), S0 the reporting history, S3 the service request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of an execution."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    COMPLETED_WITH_WARNINGS = "completed_with_warnings"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        """A terminal status never changes."""
        return self not in _LIVE


# Tuples made once: an enum's members are looked up slowly, and each event asks.
_LIVE = (Status.PENDING, Status.RUNNING, Status.WAITING)


class StepStatus(StrEnum):
    """The state of a step in S3's five words; the latest one appended is the state (S3 3.20-3.23)."""

    NOT_STARTED = "Not Started"
    RUNNING = "Running"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    COMPLETED = "Completed"

    @property
    def terminal(self) -> bool:
        """Whether no later word may follow."""
        return self in _ENDED


_ENDED = (StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.COMPLETED)


@dataclass(frozen=True, slots=True)
class Words:
    """What the three surfaces call one internal status."""

    exhaust: str
    reporting: str
    request: str


WORDS: Mapping[Status, Words] = {
    Status.PENDING: Words("SUBMITTED", "pending", "Not Started"),
    Status.RUNNING: Words("PROCESSING", "processing", "Running"),
    Status.WAITING: Words("PROCESSING", "processing", "Pending"),
    Status.COMPLETED: Words("COMPLETED", "completed", "Completed"),
    Status.COMPLETED_WITH_WARNINGS: Words("COMPLETED", "completed_with_warnings", "Completed"),
    Status.FAILED: Words("FAILED", "failed", "Failed"),
    Status.CANCELLED: Words("CANCELLED", "failed", "Cancelled"),
    Status.REJECTED: Words("FAILED", "failed", "Failed"),
}

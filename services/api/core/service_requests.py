"""Service requests (S3): what a submission becomes once its pipeline is known, and their words."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from services.contracts.commands import JobRequested
from services.contracts.status import WORDS, Status
from services.jobs import pipeline

STATUSES: Mapping[str, tuple[str, ...]] = {
    word: tuple(status.value for status in Status if WORDS[status].request == word)
    for word in dict.fromkeys(words.request for words in WORDS.values())
}
"""S3's words for the status of a request, and ours behind each."""


def completed(record: JobRequested, values: Mapping[str, Any] | None, priority: int | None) -> JobRequested:
    """The record with what its pipeline adds: defaults of the form, limits, timeout. Raises Refused."""
    assert record.definition is not None, "a service request carries its pipeline"
    known = pipeline.parsed(record.definition.body)
    given = pipeline.given_values(known, values or {})
    return replace(
        record,
        parameters={"values": given, "time_range": None},
        priority=known.priority if priority is None else priority,
        timeout_s=known.timeout_s,
        limits=pipeline.limits_of(known, record.definition.id, given) or None,
    )

"""Service requests (S3): what a submission becomes once its pipeline is known; how values are shown."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from services.api.core.submission import Submission
from services.contracts.commands import JobRequested, Json
from services.contracts.status import WORDS, Status
from services.jobs import pipeline
from services.jobs.pipeline import Pipeline

MASK = "***"
_SECRET = re.compile(r"pass(word|wd|phrase)|secret|token|credential|api_?key|authorization", re.IGNORECASE)

STATUSES: Mapping[str, tuple[str, ...]] = {
    word: tuple(status.value for status in Status if WORDS[status].request == word)
    for word in dict.fromkeys(words.request for words in WORDS.values())
}
"""S3's words for the status of a request, and ours behind each."""


def completed(record: JobRequested, asked: Submission) -> JobRequested:
    """The record with what its pipeline adds: defaults of the form, limits, timeout. Raises Refused."""
    assert record.definition is not None, "a service request carries its pipeline"
    known = parsed(record.definition.body)
    given = pipeline.given_values(known, asked.values or {})
    return replace(
        record,
        parameters={"values": given, "time_range": None},
        priority=known.priority if asked.priority is None else asked.priority,
        timeout_s=known.timeout_s,
        limits=pipeline.limits_of(known, record.definition.id, given) or None,
    )


def parsed(body: Json) -> Pipeline:
    """The pipeline of a stored body; many requests have the same one."""
    return _parsed(msgspec.json.encode(body))


@lru_cache(maxsize=128)
def _parsed(text: bytes) -> Pipeline:
    return pipeline.parse(msgspec.json.decode(text))


def masked(value: Any, name: str = "") -> Any:
    """A value as readers see it: what has the name of a secret is hidden, at any depth."""
    if _SECRET.search(name) and value is not None:
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value

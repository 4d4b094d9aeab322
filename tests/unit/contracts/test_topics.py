"""topics.yaml: what is declared, and that mistakes are named all at once."""

import copy
from typing import Any

import pytest
import yaml

from services.cli.topics import DECLARATION, declared
from services.contracts.topics import Kind, TopicsError, parse

DOCUMENT: dict[str, Any] = yaml.safe_load(DECLARATION.read_text(encoding="utf-8"))


def test_the_declared_topics() -> None:
    topics = {topic.name: topic for topic in declared()}
    assert topics["execution.events"].broker_config()["retention.ms"] == "-1"
    assert topics["execution.events"].cleanup_policy == "delete"
    assert topics["definition.state"].broker_config()["min.compaction.lag.ms"] == str(7 * 24 * 3600 * 1000)
    assert {topic.partitions for topic in topics.values() if topic.kind is not Kind.DEAD_LETTER} == {12}
    assert {topic.partitions for topic in topics.values() if topic.kind is Kind.DEAD_LETTER} == {1}


def _changed(name: str, fields: dict[str, object]) -> str:
    document = copy.deepcopy(DOCUMENT)
    (entry,) = [entry for entry in document["topics"] if entry["name"] == name]
    entry.update(fields)
    return yaml.safe_dump(document)


BAD = [
    ("job.requested", {"partitions": 6}, "job.requested.partitions: expected 12"),
    ("job.requested", {"partitions": "12"}, "expected a whole number, found '12'"),
    ("execution.events", {"cleanup_policy": "compact"}, "execution.events.cleanup_policy"),
    ("execution.events", {"cleanup_policy": "both"}, "expected delete or compact, found 'both'"),
    ("job.requested", {"retention_ms": 0}, "expected -1 or a positive number, found 0"),
    ("job.requested", {"retention": 5}, "found an unknown field"),
    ("job.requested", {"kind": "request"}, "expected one of command, work, fact, state, dead letter"),
    ("job.requested", {"producers": []}, "found an orphan"),
    ("job.requested", {"consumers": ["nobody"]}, "consumers: expected a list of"),
    ("job.requested", {"name": "Job_Requested"}, "expected lower-case words joined by dots"),
    (
        "job.requested.dlq",
        {"name": "other.dlq"},
        "other.dlq: expected a dead-letter topic of a declared topic",
    ),
    ("job.requested.dlq", {"name": "other.dlq"}, "expected job.requested.dlq beside a topic"),
    ("job.requested.dlq", {"kind": "fact"}, "expected `dead letter` exactly for names in .dlq"),
    ("job.requested.dlq", {"producers": ["executor-manager"]}, "job.requested.dlq.producers: expected api"),
    ("step.requested.dlq", {"producers": ["executor-worker"]}, "producers: expected executor-manager among"),
    ("step.completed", {"name": "job.requested"}, "job.requested: expected one entry, found 2"),
]


@pytest.mark.parametrize(("name", "fields", "says"), BAD)
def test_a_mistake_is_named(name: str, fields: dict[str, object], says: str) -> None:
    with pytest.raises(TopicsError) as caught:
        parse(_changed(name, fields))
    assert says in str(caught.value)


def test_a_file_without_topics_is_refused() -> None:
    with pytest.raises(TopicsError, match="expected a list under `topics`"):
        parse("topic: []")

"""Who may do what on the broker, as `schemas/topics.yaml` declares it; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from services.contracts.topics import PROCESSES, Topic

Operation = Literal["READ", "WRITE"]
"""Each implies that its topic or group may be described."""


class Rule(NamedTuple):
    """`process` may do `operation` on the topic or consumer group `name`, and nothing that no rule names."""

    process: str
    operation: Operation
    resource: Literal["topic", "group"]
    name: str


def rules(topics: Sequence[Topic], groups: Mapping[str, Sequence[str]]) -> list[Rule]:
    """Everything that every process may do, by process; `groups`: process -> the groups that it joins."""
    return [rule for process in sorted(PROCESSES) for rule in _rules_of(process, topics, groups)]


def _rules_of(process: str, topics: Sequence[Topic], groups: Mapping[str, Sequence[str]]) -> Iterator[Rule]:
    for topic in topics:
        if process in topic.producers:
            yield Rule(process, "WRITE", "topic", topic.name)
        if process in topic.consumers:
            yield Rule(process, "READ", "topic", topic.name)
    for group in groups[process]:
        yield Rule(process, "READ", "group", group)

"""The topics, as declared in `schemas/topics.yaml`; pure: the caller reads the file."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

LOOP_PARTITIONS = 12
DEAD_LETTER_SUFFIX = ".dlq"
# Read by every worker for itself: what one of them cannot read, none may put aside for the others.
_BROADCAST = frozenset({"step.control"})
_NAME = re.compile(r"[a-z]+(\.[a-z]+)+")
_TEXTS = ("name", "description", "key")
_NUMBERS = ("partitions", "retention_ms")
PROCESSES = frozenset({"api", "executor-manager", "executor-worker", "notifier"})
_FIELDS = frozenset(
    {*_TEXTS, *_NUMBERS, "kind", "cleanup_policy", "producers", "consumers", "config"},
)


class Kind(StrEnum):
    """What a record of the topic is."""

    COMMAND = "command"
    WORK = "work"
    FACT = "fact"
    STATE = "state"
    DEAD_LETTER = "dead letter"


class TopicsError(ValueError):
    """The file is not usable; the text has one line per mistake."""


@dataclass(frozen=True)
class Topic:
    """One declared topic; `retention_ms` -1 is for ever; `config` holds further broker settings as text."""

    name: str
    description: str
    key: str
    kind: Kind
    partitions: int
    cleanup_policy: str
    retention_ms: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    config: Mapping[str, str]

    def broker_config(self) -> dict[str, str]:
        """Every setting that the broker must have, by the broker's name for it."""
        return {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            **self.config,
        }


def parse(text: str) -> tuple[Topic, ...]:
    """The declared topics in file order. Raises TopicsError with every mistake at once."""
    document = yaml.safe_load(text)
    if not isinstance(document, dict) or not isinstance(document.get("topics"), list):
        raise TopicsError("topics.yaml: expected a list under `topics`")
    entries: list[Any] = document["topics"]
    problems = [problem for i, entry in enumerate(entries) for problem in _check(f"topics[{i}]", entry)]
    if problems:
        raise TopicsError("\n".join(problems))
    topics = tuple(_build(entry) for entry in entries)
    problems = [*_check_together(topics)]
    if problems:
        raise TopicsError("\n".join(problems))
    return topics


def parse_groups(text: str) -> dict[str, tuple[str, ...]]:
    """Process -> the consumer groups that it is a member of. Raises TopicsError."""
    document = yaml.safe_load(text)
    groups = document.get("groups") if isinstance(document, dict) else None
    if not isinstance(groups, dict) or groups.keys() != PROCESSES:
        expected = ", ".join(sorted(PROCESSES))
        raise TopicsError(f"topics.yaml.groups: expected the groups of each of {expected}, found {groups!r}")
    return {process: tuple(map(str, names)) for process, names in groups.items()}


def _check(where: str, entry: object) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{where}: expected a mapping, found {type(entry).__name__}"
        return
    where = f"{where} ({entry.get('name')})"
    for field in sorted(_FIELDS - entry.keys()):
        yield f"{where}.{field}: expected a value, found nothing"
    for field in sorted(entry.keys() - _FIELDS):
        yield f"{where}.{field}: expected one of {', '.join(sorted(_FIELDS))}, found an unknown field"
    for field in _TEXTS:
        if field in entry and not (isinstance(entry[field], str) and entry[field]):
            yield f"{where}.{field}: expected text, found {entry[field]!r}"
    for field in _NUMBERS:
        if field in entry and (not isinstance(entry[field], int) or isinstance(entry[field], bool)):
            yield f"{where}.{field}: expected a whole number, found {entry[field]!r}"
    yield from _check_words(where, entry)


def _check_words(where: str, entry: dict[str, Any]) -> Iterator[str]:
    kinds = [kind.value for kind in Kind]
    if "kind" in entry and entry["kind"] not in kinds:
        yield f"{where}.kind: expected one of {', '.join(kinds)}, found {entry['kind']!r}"
    if "cleanup_policy" in entry and entry["cleanup_policy"] not in ("delete", "compact"):
        yield f"{where}.cleanup_policy: expected delete or compact, found {entry['cleanup_policy']!r}"
    for field in ("producers", "consumers"):
        names = entry.get(field, [])
        if not isinstance(names, list) or not set(map(str, names)) <= PROCESSES:
            yield f"{where}.{field}: expected a list of {', '.join(sorted(PROCESSES))}, found {names!r}"
    config = entry.get("config", {})
    if not isinstance(config, dict) or not all(isinstance(v, int | str) for v in config.values()):
        yield f"{where}.config: expected a mapping of broker settings, found {config!r}"


def _build(entry: Mapping[str, Any]) -> Topic:
    return Topic(
        name=entry["name"],
        description=entry["description"],
        key=entry["key"],
        kind=Kind(entry["kind"]),
        partitions=entry["partitions"],
        cleanup_policy=entry["cleanup_policy"],
        retention_ms=entry["retention_ms"],
        producers=tuple(entry["producers"]),
        consumers=tuple(entry["consumers"]),
        config={str(key): str(value) for key, value in entry["config"].items()},
    )


def _check_together(topics: tuple[Topic, ...]) -> Iterator[str]:
    names = [topic.name for topic in topics]
    by_name = {topic.name: topic for topic in topics}
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name}: expected one entry, found {names.count(name)}"
    for topic in topics:
        if not _NAME.fullmatch(topic.name):
            yield f"{topic.name}: expected lower-case words joined by dots"
        if topic.retention_ms != -1 and topic.retention_ms < 1:
            yield f"{topic.name}.retention_ms: expected -1 or a positive number, found {topic.retention_ms}"
        yield from _check_kind(topic, frozenset(names))
        letters = by_name.get(topic.name + DEAD_LETTER_SUFFIX)
        if letters and (missing := _givers_up(topic) - set(letters.producers)):
            yield f"{letters.name}.producers: expected {', '.join(sorted(missing))} among them, found none"


def _givers_up(topic: Topic) -> frozenset[str]:
    """Who may have to write its dead letters: who reads it, and who has a loop or an outbox that writes it.

    Workers have neither: they keep what they report within every topic's limit.
    """
    return frozenset(topic.consumers) | frozenset(topic.producers) - {"executor-worker"}


def _check_kind(topic: Topic, names: frozenset[str]) -> Iterator[str]:
    is_dead_letter = topic.kind is Kind.DEAD_LETTER
    if is_dead_letter != topic.name.endswith(DEAD_LETTER_SUFFIX):
        yield f"{topic.name}.kind: expected `dead letter` exactly for names in {DEAD_LETTER_SUFFIX}"
    if is_dead_letter and topic.name.removesuffix(DEAD_LETTER_SUFFIX) not in names:
        yield f"{topic.name}: expected a dead-letter topic of a declared topic, found an orphan"
    has_readers = topic.consumers and topic.name not in _BROADCAST
    if has_readers and topic.name + DEAD_LETTER_SUFFIX not in names:
        yield f"{topic.name}: expected {topic.name}{DEAD_LETTER_SUFFIX} beside a topic that has consumers"
    if not topic.producers or (not is_dead_letter and not topic.consumers):
        yield f"{topic.name}: expected producers and consumers, found an orphan"
    if topic.kind not in (Kind.DEAD_LETTER, Kind.WORK) and topic.partitions != LOOP_PARTITIONS:
        yield f"{topic.name}.partitions: expected {LOOP_PARTITIONS} for a loop, found {topic.partitions}"
    if topic.partitions < 1:
        yield f"{topic.name}.partitions: expected at least 1, found {topic.partitions}"
    if (topic.kind is Kind.STATE) != (topic.cleanup_policy == "compact"):
        yield f"{topic.name}.cleanup_policy: only kind state is compacted, found {topic.cleanup_policy}"

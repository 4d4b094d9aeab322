"""schemas/asyncapi.yaml against what the processes use: topics, records, headers; and that it is whole."""

from collections.abc import Iterator
from typing import Any

import yaml

from services.cli import asyncapi, topics
from services.contracts.codec import ON_TOPIC
from services.contracts.events import TYPES
from tests.contract.catalogue import FOLDER, manifest

CHECKED_IN = (FOLDER / "asyncapi.yaml").read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(CHECKED_IN)


def test_it_is_current() -> None:
    current = asyncapi.as_yaml(asyncapi.document())
    assert current == CHECKED_IN, "run: millstream asyncapi > schemas/asyncapi.yaml"


def test_every_topic_is_a_channel_with_its_settings() -> None:
    declared = {topic.name: topic for topic in topics.declared()}
    assert DOCUMENT["channels"].keys() == declared.keys()
    for name, channel in DOCUMENT["channels"].items():
        kafka = channel["bindings"]["kafka"]
        assert (channel["address"], kafka["topic"]) == (name, name)
        assert kafka["partitions"] == declared[name].partitions
        assert kafka["topicConfiguration"]["retention.ms"] == declared[name].retention_ms


def test_every_record_is_a_message_of_its_channels() -> None:
    carried = {
        name: set(channel["messages"]) for name, channel in DOCUMENT["channels"].items() if name in ON_TOPIC
    }
    assert carried == {name: {cls.__name__ for cls in classes} for name, classes in ON_TOPIC.items()}


def test_every_number_stands_at_its_message() -> None:
    messages = DOCUMENT["components"]["messages"]
    numbers = {id: name for name, message in messages.items() for id in message.get("x-schema-ids", ())}
    assert numbers == {line.id: line.name.rpartition(".")[2] for line in manifest()}
    newest = {
        line.name.rpartition(".")[2]: line for line in sorted(manifest(), key=lambda line: line.version)
    }
    for name, line in newest.items():
        assert messages[name]["payload"]["schema"] == line.schema
        assert len(messages[name]["examples"]) == len(line.examples)
    assert {messages[cls.__name__]["name"] for cls in TYPES.values()} == set(TYPES)


def test_who_writes_and_reads_is_an_operation() -> None:
    expected = {
        (process, action, topic.name)
        for topic in topics.declared()
        for action, processes in (("send", topic.producers), ("receive", topic.consumers))
        for process in processes
    }
    found = {
        (name.partition(".")[0], operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for name, operation in DOCUMENT["operations"].items()
    }
    assert found == expected


def references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str() as target}:
            yield target
        case dict():
            for inner in node.values():
                yield from references(inner)
        case list():
            for inner in node:
                yield from references(inner)
        case _:
            pass


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        node: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_headers_of_the_examples_are_those_that_are_described() -> None:
    for message in DOCUMENT["components"]["messages"].values():
        for example in message.get("examples", ()):
            assert set(example["headers"]) == set(message["headers"]["required"])

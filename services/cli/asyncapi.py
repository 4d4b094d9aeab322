"""AsyncAPI 3: topics, records and headers as one document, made from what the processes themselves use.

`schemas/asyncapi.yaml` is its checked-in form, which a test compares with this one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
import yaml

from services.cli import output, topics
from services.cli.letters import CLAIM, REASONS
from services.cli.output import AsJson
from services.contracts import envelope, events
from services.contracts.codec import ON_TOPIC, RECORDS, Record
from services.contracts.commands import StepOutcome, StepReport
from services.contracts.topics import Kind, Topic
from services.runtime import schemas

Json = dict[str, Any]

VERSION = "1"
BINDING = {"bindingVersion": "0.5.0"}
AVRO = "application/vnd.apache.avro;version=1.9.0"
DEAD_LETTER = "DeadLetter"
ABOUT = """\
What crosses Kafka. Every value is one Avro record in Confluent's frame (0x00, the schema's number as four
bytes big-endian, the body); the numbers are the messages' x-schema-ids, and no registry is needed. Keys are
UTF-8 text, partitions go by murmur2 of the key. Other services may write to job.requested and read every
topic; who may do what is for the broker's access rules to say. Records may be written twice: their id (the
header ce_id) stays the same.
"""


def document() -> Json:
    """The document. Raises OSError when a file of schemas/ cannot be read."""
    declared = topics.declared()
    messages = {name: _message(name, versions, declared) for name, versions in _versions().items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millstream",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/avro",
        "servers": {
            "broker": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "that of `millstream dev`; in production, yours",
            }
        },
        "channels": {topic.name: _channel(topic) for topic in declared},
        "operations": {
            f"{process}.{action}.{topic.name}": _operation(process, action, topic)
            for topic in declared
            for action, processes in (("send", topic.producers), ("receive", topic.consumers))
            for process in processes
        },
        "components": {"messages": {**messages, DEAD_LETTER: _dead_letter()}},
    }


def _versions() -> Mapping[str, list[tuple[int, str, Json]]]:
    """Record -> (number, file, schema) of each version, the oldest first."""
    manifest = json.loads((schemas.FOLDER / "manifest.json").read_text(encoding="utf-8"))["schemas"]
    found: dict[str, list[tuple[int, str, Json]]] = {}
    for line in sorted(manifest, key=lambda line: line["version"]):
        schema = json.loads((schemas.FOLDER / line["file"]).read_text(encoding="utf-8"))
        found.setdefault(line["name"].rpartition(".")[2], []).append((line["id"], line["file"], schema))
    return found


def _channel(topic: Topic) -> Json:
    config: Json = {name: _number(value) for name, value in topic.broker_config().items()}
    config["cleanup.policy"] = [topic.cleanup_policy]
    kafka = {"topic": topic.name, "partitions": topic.partitions, "topicConfiguration": config, **BINDING}
    names = _carried(topic)
    return {
        "address": topic.name,
        "title": topic.name,
        "description": topic.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": kafka},
        "x-kind": topic.kind.value,
        "x-key": topic.key,
    }


def _carried(topic: Topic) -> list[str]:
    if topic.kind is Kind.DEAD_LETTER:
        return [DEAD_LETTER]
    order = list(RECORDS.values())
    return [cls.__name__ for cls in sorted(ON_TOPIC[topic.name], key=order.index)]


def _operation(process: str, action: str, topic: Topic) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{process} {'writes' if action == 'send' else 'reads'} {topic.name}",
    }


def _message(name: str, versions: Sequence[tuple[int, str, Json]], declared: Sequence[Topic]) -> Json:
    _, file, schema = versions[-1]
    cls = RECORDS[f"{schema['namespace']}.{name}"]
    keys = [topic.key for topic in declared if cls in ON_TOPIC.get(topic.name, ())]
    examples = [
        (path, msgspec.json.decode(path.read_bytes(), type=cls)) for path in _examples(Path(file).stem)
    ]
    return {
        "name": next((type_ for type_, event in events.TYPES.items() if event is cls), name),
        "title": name,
        "summary": schema["doc"],
        "contentType": "application/avro",
        "headers": _headers(cls, [name for name, _ in _sent(examples[0][1]).headers]),
        "payload": {"schemaFormat": AVRO, "schema": schema},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": keys[0]},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                **BINDING,
            }
        },
        "examples": [
            {
                "name": path.stem,
                "headers": {header: value.decode() for header, value in _sent(record).headers},
                "payload": json.loads(path.read_text(encoding="utf-8")),
            }
            for path, record in examples
        ],
        "x-schema-ids": [number for number, _, _ in versions],
    }


def _examples(stem: str) -> list[Path]:
    return sorted((schemas.FOLDER / "examples" / stem).glob("*.json"))


def _sent(record: Record) -> envelope.Outgoing:
    """The record as it is sent; its headers are what is wanted. The chain stands for one of 32 bytes."""
    value = schemas.codec().encode(record)
    if isinstance(record, events.Facts):
        return envelope.event(record, value, bytes(32))
    return envelope.command(record, value)


def _headers(cls: type[Record], names: Sequence[str]) -> Json:
    hints = [envelope.WAITED] if cls in (StepReport, StepOutcome) else []
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in [*names, *hints]},
        "required": list(names),
    }


def _dead_letter() -> Json:
    return {
        "name": DEAD_LETTER,
        "title": "Dead letter",
        "summary": "A record as it came, the reason in headers; or, without a value, what became of one.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in (*REASONS, *CLAIM)},
        },
        "bindings": {"kafka": {"key": {"type": "string", "description": "that of the record"}, **BINDING}},
    }


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


class _Dumper(yaml.SafeDumper):
    """Every value written out: anchors are for machines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Paragraphs as they are."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(value: Json) -> str:
    """The checked-in form."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return (
        "# Made by `millstream asyncapi > schemas/asyncapi.yaml`; a test says when it is out of date.\n"
        + text
    )


def asyncapi(as_json: AsJson = False) -> None:
    """Print the AsyncAPI 3 document of this version: topics, records, headers."""
    if as_json:
        output.json_document(document())
    else:
        typer.echo(as_yaml(document()), nl=False)

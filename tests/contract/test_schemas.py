"""The Avro schemas against the code, their examples, their own past, and what must never be decoded."""

import copy
import json
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any

import fastavro
import msgspec
import pytest
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields, replace

from services.contracts import events
from services.contracts.codec import ON_TOPIC, RECORDS, Codec
from services.contracts.errors import Undecodable
from services.runtime import schemas
from tests.contract.catalogue import Line, example, fingerprint, manifest
from tests.contract.compatibility import unreadable

LINES = manifest()
EXAMPLES = [(line, path) for line in LINES for path in line.examples]
each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.id} {line.name}")
each_example = pytest.mark.parametrize(
    ("line", "path"), EXAMPLES, ids=[f"{path.parent.name}/{path.name}" for _, path in EXAMPLES]
)


def written(line: Line, record: Any) -> bytes:
    """The record as a writer of this version puts it on its topic."""
    buffer = BytesIO(b"\0" + line.id.to_bytes(4, "big"))
    buffer.seek(5)
    body = msgspec.to_builtins(record, builtin_types=(datetime, bytes))
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(line.schema, named_schemas={}), body)
    return buffer.getvalue()


def bytes_of(line: Line) -> bytes:
    """The record of the first example as it lies on its topic."""
    return written(line, example(line, line.examples[0]))


def is_newest(line: Line) -> bool:
    return line.version == max(other.version for other in LINES if other.name == line.name)


# ---------------------------------------------------------------- manifest


def test_every_record_of_the_code_has_a_schema() -> None:
    assert {line.name for line in LINES} == set(RECORDS)


@each_line
def test_a_committed_schema_never_changes(line: Line) -> None:
    found = fingerprint(line.schema)
    assert found == line.fingerprint, (
        f"{line.file}: expected fingerprint {line.fingerprint}, found {found}; records with id {line.id} are"
        " in the log for ever: add a new version instead (schemas/README.md)"
    )
    assert f"{line.schema['namespace']}.{line.schema['name']}" == line.name


def test_versions_have_no_gap_and_ids_grow_with_them() -> None:
    for name in RECORDS:
        lines = [line for line in LINES if line.name == name]
        assert [line.version for line in lines] == list(range(1, len(lines) + 1)), name
        assert [line.id for line in lines] == sorted({line.id for line in lines}), name


# ---------------------------------------------------------------- compatibility


@pytest.mark.parametrize("name", RECORDS)
def test_versions_are_compatible(name: str) -> None:
    """Events: every version reads every other (FULL_TRANSITIVE). Commands: the next reads the former."""
    versions = [line for line in LINES if line.name == name]
    pairs = (
        [(a, b) for a in versions for b in versions]
        if versions[0].is_event
        else [*pairwise(versions), (versions[-1], versions[-1])]
    )
    for writer, reader in pairs:
        faults = list(unreadable(writer.schema, reader.schema))
        assert not faults, f"{name}: version {reader.version} cannot read version {writer.version}: {faults}"


def changed(change: Callable[[list[dict[str, Any]]], object]) -> dict[str, Any]:
    """The schema of `step.failed` after a change to its fields."""
    schema = copy.deepcopy(next(line.schema for line in LINES if line.name.endswith("StepFailed")))
    change(schema["fields"])
    return schema


JSON = {"type": "string", "logicalType": "json"}
OPTIONAL = {"name": "hint", "type": ["null", "string"], "default": None}


def test_an_added_field_with_a_default_is_compatible_both_ways() -> None:
    old, new = changed(lambda fields: None), changed(lambda fields: fields.append(OPTIONAL))
    assert not list(unreadable(old, new))
    assert not list(unreadable(new, old))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda fields: fields.append({"name": "hint", "type": "string"}), "hint: is new"),
        (lambda fields: fields[-1].update(name="text"), "text: is new"),
        (lambda fields: fields.append(OPTIONAL | {"type": JSON, "default": "{}"}), "hint: is new JSON text"),
        (lambda fields: fields[-1].update(type="long"), "message: string is not read as long"),
        (lambda fields: fields[4].update(type="long"), "occurred_at: logical type"),
        (lambda fields: fields[-1].update(type=["null", "long"]), "message: no branch reads string"),
    ],
)
def test_an_incompatible_change_is_named(change: Callable[[Any], object], fault: str) -> None:
    faults = list(unreadable(changed(lambda fields: None), changed(change)))
    assert any(fault in line for line in faults), faults


def test_a_field_that_may_be_null_is_not_read_by_one_that_may_not() -> None:
    new = changed(lambda fields: fields[-1].update(type=["null", "string"], default=None))
    assert list(unreadable(new, changed(lambda fields: None)))


def test_any_other_change_of_a_committed_schema_is_seen() -> None:
    line = next(line for line in LINES if line.name.endswith("StepFailed"))
    assert fingerprint(changed(lambda fields: fields.append(OPTIONAL))) != line.fingerprint


WITH_OPTIONAL = [
    line
    for line in LINES
    if "default" in line.schema["fields"][-1] and line.schema["fields"][-1]["type"] != JSON
]


@pytest.mark.parametrize("line", WITH_OPTIONAL, ids=lambda line: line.name)
def test_a_record_of_an_older_writer_is_read_with_the_default(line: Line) -> None:
    """As if the last optional field had been added by a new version: the old bytes still decode."""
    old = copy.deepcopy(line.schema)
    added = old["fields"].pop()["name"]
    codec = Codec({1: old, line.id: line.schema})
    record = example(line, line.examples[0])
    body = msgspec.to_builtins(record, builtin_types=(datetime, bytes))
    buffer = BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(old, named_schemas={}), body)
    read = codec.decode(line.topic, b"\0\0\0\0\1" + buffer.getvalue())
    default = line.schema["fields"][-1]["default"]
    assert getattr(read, added) == (() if default == [] else default)
    assert replace(read, **{added: getattr(record, added)}) == record


# ---------------------------------------------------------------- classes


@each_line
def test_class_and_schema_have_the_same_fields_in_the_same_order(line: Line) -> None:
    if is_newest(line):
        assert_same(line.schema, line.record)


def assert_same(schema: Mapping[str, Any], cls: type[Any]) -> None:
    assert schema["name"] == cls.__name__
    hints = typing.get_type_hints(cls)
    assert [field["name"] for field in schema["fields"]] == [field.name for field in fields(cls)]
    for avro, python in zip(schema["fields"], fields(cls), strict=True):
        place = f"{cls.__name__}.{python.name}"
        assert_type(avro["type"], hints[python.name], place)
        if (default := default_of(python)) is not NODEFAULT:
            is_json = isinstance(avro["type"], dict) and avro["type"].get("logicalType") == "json"
            written = json.loads(avro["default"]) if is_json else avro["default"]
            assert written == (list(default) if isinstance(default, tuple) else default), place


def default_of(field: FieldInfo) -> Any:
    if field.default_factory is not NODEFAULT:
        return field.default_factory()
    return field.default


def assert_type(avro: Any, python: Any, place: str) -> None:
    """`long` is int, `timestamp-micros` datetime, `json` anything, a union with null an optional, ..."""
    arguments = typing.get_args(python)
    origin = typing.get_origin(python)
    if python is Any:
        assert avro == {"type": "string", "logicalType": "json"}, place
    elif origin in (UnionType, typing.Union):
        (some,) = [argument for argument in arguments if argument is not type(None)]
        assert avro[0] == "null" and len(avro) == 2, place
        assert_type(avro[1], some, place)
    elif origin is tuple:
        assert avro["type"] == "array", place
        assert_type(avro["items"], arguments[0], place)
    elif arguments:
        assert avro == {"type": "map", "values": "string"} and arguments == (str, str), place
    elif isinstance(python, type) and issubclass(python, Struct):
        assert_same(avro, python)
    else:
        plain: Mapping[type, Any] = {
            bool: "boolean",
            datetime: {"type": "long", "logicalType": "timestamp-micros"},
            int: "long",
            str: "string",
        }
        assert avro == plain[python], place


# ---------------------------------------------------------------- examples


@each_example
def test_an_example_survives_the_wire(line: Line, path: Path) -> None:
    record = example(line, path)
    value = written(line, record)
    assert schemas.codec().decode(line.topic, value) == record
    if is_newest(line):
        assert schemas.codec().encode(record) == value


@each_line
def test_examples_are_numbered_from_one(line: Line) -> None:
    assert line.examples, f"{line.name} has no example"
    assert {path.name for path in line.examples} == {f"{n}.json" for n in range(1, len(line.examples) + 1)}


@each_example
def test_an_example_shows_every_field(line: Line, path: Path) -> None:
    shown = list(json.loads(path.read_bytes()))
    assert shown == [field["name"] for field in line.schema["fields"]]


# ---------------------------------------------------------------- what is no record


@each_line
def test_every_cut_is_refused(line: Line) -> None:
    value = bytes_of(line)
    for length in range(len(value)):
        with pytest.raises(Undecodable):
            schemas.codec().decode(line.topic, value[:length])


@each_line
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda value: b"\1" + value[1:], "frame starts with byte 0x01"),
        (lambda value: value[:1] + b"\0\0\x27\x0f" + value[5:], "unknown schema id 9999"),
        (lambda value: value + b"\0", "bytes follow the record"),
        (lambda value: value + value, "bytes follow the record"),
        (lambda value: b'{"execution_id": "x"}', "frame starts with byte 0x7b"),
        (lambda value: b"", "empty"),
        (lambda value: None, "empty"),
    ],
)
def test_what_is_no_record_is_refused_with_the_reason(
    line: Line, spoil: Callable[[bytes], bytes | None], why: str
) -> None:
    with pytest.raises(Undecodable, match=why):
        schemas.codec().decode(line.topic, spoil(bytes_of(line)))


@each_line
def test_a_record_belongs_to_its_topic_only(line: Line) -> None:
    for topic, records in ON_TOPIC.items():
        if line.record not in records:
            with pytest.raises(Undecodable, match=f"does not belong on topic {topic}"):
                schemas.codec().decode(topic, bytes_of(line))


def test_a_record_of_another_schema_is_no_record() -> None:
    """Under a wrong id, bytes are refused, or are a record that encodes to them again: never half of one."""
    for line in LINES:
        body = bytes_of(line)[5:]
        for other in LINES:
            if other.id == line.id:
                continue
            value = b"\0" + other.id.to_bytes(4, "big") + body
            try:
                record = schemas.codec().decode(other.topic, value)
            except Undecodable:
                continue
            assert written(other, record) == value


def test_every_event_type_has_its_record_on_the_log() -> None:
    assert ON_TOPIC["execution.events"] == frozenset(events.TYPES.values())

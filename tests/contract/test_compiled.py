"""The compiled codec against fastavro: the same bytes, the same records, the same refusals."""

import string
import types
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Union, get_args, get_origin, get_type_hints

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from services.contracts import compiled
from services.contracts.codec import RECORDS
from services.contracts.commands import Json
from services.contracts.errors import Undecodable
from services.runtime import schemas
from tests.contract.catalogue import Line, manifest

CODEC = schemas.codec()
NEWEST = {line.name: line for line in manifest()}
LINES = list(NEWEST.values())
AVRO = {line.id: fastavro.parse_schema(line.schema, named_schemas={}) for line in LINES}
COMPILED = {
    line.id: (
        compiled.encoder(line.schema, b"\0" + line.id.to_bytes(4, "big")),
        compiled.decoder(line.schema, line.record),
    )
    for line in LINES
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TEXTS = st.text(max_size=12) | st.text(string.ascii_letters, min_size=60, max_size=200)
LONGS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-70, 70)
INSTANTS = st.integers(-(10**15), 10**16).map(lambda micros: EPOCH + timedelta(microseconds=micros))
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: LONGS,
    bool: st.booleans(),
    datetime: INSTANTS,
    Json: JSONS,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field of our records."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, Struct):
        return records(hint)
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    assert get_origin(hint) in {Union, types.UnionType}, hint
    return st.none() | values(next(argument for argument in arguments if argument is not type(None)))


def records(cls: Any) -> st.SearchStrategy[Any]:
    """Any record of a class."""
    hints = get_type_hints(cls)
    return st.fixed_dictionaries({name: values(hints[name]) for name in cls.__struct_fields__}).map(
        lambda v: cls(**v)
    )


def by_fastavro(line: Line, record: Any) -> bytes:
    buffer = BytesIO(b"\0" + line.id.to_bytes(4, "big"))
    buffer.seek(5)
    body = msgspec.to_builtins(record, builtin_types=(datetime, bytes))
    fastavro.schemaless_writer(buffer, AVRO[line.id], body, strict=True)
    return buffer.getvalue()


def read_by_fastavro(line: Line, value: bytes) -> Any:
    buffer = BytesIO(value)
    buffer.seek(5)
    body = fastavro.schemaless_reader(buffer, AVRO[line.id], None)
    assert not buffer.read(1)
    return msgspec.convert(body, type=line.record)


each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)


@each_line
@given(data=st.data())
@settings(max_examples=25)
def test_any_record_has_the_bytes_that_fastavro_gives_it(line: Line, data: st.DataObject) -> None:
    record = data.draw(records(line.record))
    encode, decode = COMPILED[line.id]
    value = by_fastavro(line, record)
    assert encode(record) == CODEC.encode(record) == value
    assert decode(value) == read_by_fastavro(line, value) == CODEC.decode(line.topic, value)


@each_line
@given(data=st.data())
@settings(max_examples=25)
def test_damaged_bytes_are_read_as_fastavro_reads_them(line: Line, data: st.DataObject) -> None:
    value = bytearray(CODEC.encode(data.draw(records(line.record))))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(5, len(value) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(value[: data.draw(st.integers(6, len(value)))])
    try:
        expected = read_by_fastavro(line, damaged)
    except Exception:
        with pytest.raises(Undecodable):
            CODEC.decode(line.topic, damaged)
    else:
        assert CODEC.decode(line.topic, damaged) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("step", 1), ("attempt", "1"), ("attempt", 1 << 63), ("occurred_at", "now"), ("take_id", None)],
)
def test_a_value_of_another_type_is_refused(field: str, value: Any) -> None:
    cls: Any = RECORDS["millstream.events.StepRunning"]
    line = NEWEST["millstream.events.StepRunning"]
    record = structs.replace(read_by_fastavro(line, CODEC.encode(_example(cls))), **{field: value})
    with pytest.raises((ValueError, TypeError, OverflowError)):
        CODEC.encode(record)


def _example(cls: Any) -> Any:
    made: dict[Any, Any] = {str: "x", int: 1, datetime: EPOCH}
    return cls(**{name: made[hint] for name, hint in get_type_hints(cls).items()})

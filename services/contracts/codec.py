"""Records to bytes and back: Avro in Confluent's five-byte frame (0x00, schema id as big-endian int32).

The ids are those of `schemas/manifest.json`, so no registry is needed; the caller reads the files.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

import fastavro
import msgspec
from fastavro.read import LOGICAL_READERS
from fastavro.write import LOGICAL_WRITERS

from services.contracts import commands, compiled, events
from services.contracts.commands import Command
from services.contracts.errors import Undecodable
from services.contracts.events import Event
from services.contracts.numbers import exact

Record = Command | Event

RECORDS: Mapping[str, type[Record]] = {
    **{f"millstream.events.{cls.__name__}": cls for cls in events.TYPES.values()},
    **{
        f"millstream.commands.{cls.__name__}": cls
        for cls in (
            commands.JobRequested,
            commands.StepRequested,
            commands.StepReport,
            commands.StepOutcome,
            commands.DefinitionState,
            commands.ExecutionCommand,
            commands.StepControl,
        )
    },
}
# Which records each topic may carry; anything else there is poison.
ON_TOPIC: Mapping[str, frozenset[type[Record]]] = {
    "job.requested": frozenset({commands.JobRequested}),
    "step.requested": frozenset({commands.StepRequested}),
    "step.requested.long": frozenset({commands.StepRequested}),
    "step.control": frozenset({commands.StepControl}),
    "execution.commands": frozenset({commands.ExecutionCommand}),
    "step.progressed": frozenset({commands.StepReport}),
    "step.completed": frozenset({commands.StepOutcome}),
    "definition.state": frozenset({commands.DefinitionState}),
    "execution.events": frozenset(events.TYPES.values()),
}

_FRAME = struct.Struct(">bI")
_BUILTIN = (datetime, bytes)


@dataclass(frozen=True, slots=True)
class Schema:
    """One line of the manifest with its parsed schema."""

    id: int
    name: str
    source: Mapping[str, Any]
    avro: str | list[Any] | dict[Any, Any]


class Codec:
    """Encodes and decodes the records of the manifest's schemas.

    Compiled functions do the work; what they refuse, and records of older schemas, go through fastavro, whose
    verdict counts.
    """

    def __init__(self, schemas: Mapping[int, Mapping[str, Any]]) -> None:
        """`schemas`: numeric id -> Avro schema as JSON. Later ids of one name are newer versions of it."""
        self._by_id: dict[int, Schema] = {}
        self._newest: dict[type[Record], Schema] = {}
        for id, source in sorted(schemas.items()):
            avro = fastavro.parse_schema(dict(source), named_schemas={})
            schema = Schema(id, f"{source['namespace']}.{source['name']}", source, avro)
            self._by_id[id] = schema
            self._newest[RECORDS[schema.name]] = schema
        newest = self._newest.items()
        self._encode = {cls: compiled.encoder(s.source, _FRAME.pack(0, s.id)) for cls, s in newest}
        self._decode = {s.id: compiled.decoder(s.source, cls) for cls, s in newest}

    def encode(self, record: Record) -> bytes:
        """The framed bytes of a record. ValueError or TypeError: a field does not fit its schema."""
        try:
            return self._encode[type(record)](record)
        except Exception:  # something does not fit, and fastavro says what
            return self._encode_plainly(record)

    def _encode_plainly(self, record: Record) -> bytes:
        schema = self._newest[type(record)]
        buffer = BytesIO()
        buffer.write(_FRAME.pack(0, schema.id))
        body = msgspec.to_builtins(record, builtin_types=_BUILTIN)
        fastavro.schemaless_writer(buffer, schema.avro, body, strict=True)
        return buffer.getvalue()

    def decode(self, topic: str, value: bytes | None) -> Record:
        """The record in `value`. Undecodable: these bytes are no record that `topic` may carry."""
        if not value:
            raise Undecodable("the value is empty: expected an Avro record in Confluent's frame")
        if len(value) < _FRAME.size or value[0] != 0:
            raise Undecodable(
                f"the frame starts with byte {value[0]:#04x}: expected 0x00 and a 4-byte schema id"
            )
        schema = self._by_id.get(_FRAME.unpack_from(value)[1])
        if schema is None:
            raise Undecodable(f"unknown schema id {_FRAME.unpack_from(value)[1]}: see schemas/manifest.json")
        cls = RECORDS[schema.name]
        if cls not in ON_TOPIC[topic]:
            raise Undecodable(f"{schema.name} does not belong on topic {topic}")
        try:
            record: Record = self._decode[schema.id](value)
        except Exception:  # an older schema, or damaged, or written as we never write: fastavro knows
            return self._body(schema, cls, value)
        return record

    def _body(self, schema: Schema, cls: type[Record], value: bytes) -> Record:
        buffer = BytesIO(value)
        buffer.seek(_FRAME.size)
        try:
            body = fastavro.schemaless_reader(buffer, schema.avro, self._newest[cls].avro)
            record: Record = msgspec.convert(body, type=cls)
        except Exception as error:  # fastavro raises many kinds on damaged bytes; each means the same here
            raise Undecodable(
                f"{schema.name}: damaged or truncated ({type(error).__name__}: {error})"
            ) from error
        if buffer.read(1):
            raise Undecodable(f"{schema.name}: {len(value) - buffer.tell() + 1} bytes follow the record")
        return record


_JSON = msgspec.json.Encoder(decimal_format="number")
_OF_JSON = msgspec.json.Decoder(float_hook=exact)


def _write_json(value: Any, *_: Any) -> str:
    return _JSON.encode(value).decode()


def _read_json(text: str, *_: Any) -> Any:
    return _OF_JSON.decode(text)


LOGICAL_WRITERS["string-json"] = _write_json
LOGICAL_READERS["string-json"] = _read_json

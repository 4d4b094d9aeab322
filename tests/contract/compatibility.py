"""Whether records written with one Avro schema can be read with another (Avro 1.12, "Schema Resolution").

Stricter than the specification where it would be silent: a changed logical type means other values.
"""

from collections.abc import Iterator
from typing import Any

Schema = Any

PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def unreadable(writer: Schema, reader: Schema, at: str = "") -> Iterator[str]:
    """Why `reader` cannot read what `writer` wrote: one line a fault, none when it can.

    Named types are written where they are used, as in this folder: a reference by name is a fault here.
    """
    if isinstance(writer, list):
        for branch in writer:
            yield from unreadable(branch, reader, at)
        return
    if isinstance(reader, list):
        if not any(not list(unreadable(writer, branch, at)) for branch in reader):
            yield f"{at}: no branch reads {_kind(writer)}"
        return
    kinds = _kind(writer), _kind(reader)
    if kinds[0] != kinds[1] and kinds[1] not in PROMOTIONS.get(kinds[0], ()):
        yield f"{at}: {kinds[0]} is not read as {kinds[1]}"
    elif _logical(writer) != _logical(reader):
        yield f"{at}: logical type {_logical(writer)} is not {_logical(reader)}"
    elif kinds[0] == "record":
        yield from _records(writer, reader, at)
    elif kinds[0] == "array":
        yield from unreadable(writer["items"], reader["items"], f"{at}[]")
    elif kinds[0] == "map":
        yield from unreadable(writer["values"], reader["values"], f"{at}{{}}")
    elif kinds[0] in ("enum", "fixed") and writer != reader:
        yield f"{at}: {kinds[0]} changed"


def _records(writer: Schema, reader: Schema, at: str) -> Iterator[str]:
    if writer["name"] != reader["name"]:
        yield f"{at}: record {writer['name']} is not {reader['name']}"
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        place = f"{at}.{field['name']}".removeprefix(".")
        if field["name"] in written:
            yield from unreadable(written[field["name"]]["type"], field["type"], place)
        elif "default" not in field:
            yield f"{place}: is new and has no default"
        elif _logical(field["type"]) == "json":
            # Readers of Avro apply no logical type to a default: "{}" would be read as that text.
            yield f"{place}: is new JSON text; make it a union with null, and null the default"


def _kind(schema: Schema) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _logical(schema: Schema) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None

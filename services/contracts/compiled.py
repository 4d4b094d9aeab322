"""Encoders and decoders written as Python source from a record's Avro schema, then compiled: several times as
fast as a general codec, which looks at the schema again for each field of each record.

They know what our schemas use: string, long, boolean, record, array, map, a union with null, and the logical
types timestamp-micros and json. What they make is byte for byte what fastavro makes. Values and bytes that
they do not understand raise, whatever it may be; the caller then asks fastavro, whose verdict counts.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_type_hints

import msgspec

from services.contracts.numbers import exact

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]

FRAME_BYTES = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = 1 << 63
_INSTANTS_MAX = 1000


class _Longs(dict[int, bytes]):
    """Avro's long (zigzag, seven bits a byte) by value; small ones are kept."""

    def __missing__(self, value: int) -> bytes:
        if type(value) is not int or not -_INT64 <= value < _INT64:
            raise ValueError(f"expected a 64-bit integer, found {value!r}")
        rest = value << 1 if value >= 0 else (-value << 1) - 1
        found = bytearray()
        while rest > 0x7F:
            found.append(rest & 0x7F | 0x80)
            rest >>= 7
        found.append(rest)
        return bytes(found)


class _Instants(dict[datetime, bytes]):
    """timestamp-micros by instant: all events of a batch have the same one."""

    def __missing__(self, instant: datetime) -> bytes:
        if len(self) >= _INSTANTS_MAX:
            self.clear()
        found = self[instant] = _LONGS[(instant - _EPOCH) // _MICROSECOND]
        return found


_LONGS = _Longs()
_LONGS.update({value: _LONGS[value] for value in range(-64, 4096)})


def encoder(schema: Mapping[str, Any], frame: bytes) -> Encode:
    """`record -> frame + body` for records of this schema (a plain one, as its file has it)."""
    writer = _Writer()
    body = writer.record(schema, "r")
    source = [*writer.functions, "def encode(r):", f"    return join((FRAME, {body}))"]
    made: dict[str, Any] = {
        "FRAME": frame,
        "LONG": _LONGS,
        "AT": _Instants(),
        "json": msgspec.json.Encoder(decimal_format="number").encode,
        "join": b"".join,
        "boolean": {True: b"\x01", False: b"\x00"},
    }
    exec("\n".join(source), made)  # noqa: S102 the source is made from our own schemas
    encode: Encode = made["encode"]
    return encode


class _Writer:
    """Each method returns the source of an expression, or of several with commas, that gives bytes."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self._names = 0

    def record(self, schema: Mapping[str, Any], owner: str) -> str:
        return ", ".join(self._value(field["type"], f"{owner}.{field['name']}") for field in schema["fields"])

    def _value(self, avro: Any, value: str) -> str:  # noqa: PLR0911 one a type
        match avro:
            case ["null", other]:
                name = self._name()
                some = self._joined(self._value(other, name))
                return f"(b'\\0' if ({name} := {value}) is None else b'\\x02' + {some})"
            case {"type": "string", "logicalType": "json"}:
                return self._sized(f"json({value})")
            case {"type": "long", "logicalType": "timestamp-micros"}:
                return f"AT[{value}]"
            case {"type": "array", "items": items}:
                return self._block(items, value, "item", "", value)
            case {"type": "map", "values": values}:
                key = self._sized("key.encode()")
                return self._block(values, value, "item", f"{key}, ", f"{value}.items()", "key, item")
            case {"type": "record"}:
                name = self._name()
                return self._joined(self.record(avro, name).replace(f"{name}.", f"({name} := {value}).", 1))
            case "string" | {"type": "string"}:
                return self._sized(f"{value}.encode()")
            case "long" | {"type": "long"}:
                return f"LONG[{value}]"
            case "boolean" | {"type": "boolean"}:
                return f"boolean[{value}]"
            case _:
                raise TypeError(f"expected a type that our schemas use, found {avro!r}")

    def _sized(self, expression: str) -> str:
        name = self._name()
        return f"LONG[len({name} := {expression})], {name}"

    def _block(
        self, items: Any, value: str, item: str, prefix: str, source: str, target: str = "item"
    ) -> str:
        """An array or map: one block, unless it is empty."""
        function = f"block_{self._name()}"
        inner = prefix + self._value(items, item)
        self.functions += [
            f"def {function}(items):",
            "    if not items: return b'\\0'",
            "    found = [LONG[len(items)]]",
            f"    for {target} in {source.replace(value, 'items', 1)}: found += ({inner},)",
            "    found.append(b'\\0')",
            "    return join(found)",
        ]
        return f"{function}({value})"

    def _joined(self, parts: str) -> str:
        return f"join(({parts},))"

    def _name(self) -> str:
        self._names += 1
        return f"v{self._names}"


def decoder(schema: Mapping[str, Any], cls: type[Any]) -> Decode:
    """`framed bytes -> record`, for bytes that were written with this very schema. The frame is not read."""
    reader = _Reader()
    name = reader.record(schema, cls)
    source = [
        *reader.functions,
        "def decode(b):",
        f"    record, p = {name}(b, {FRAME_BYTES})",
        "    if p != len(b): raise ValueError('truncated, or more than a record')",
        "    return record",
    ]
    made: dict[str, Any] = {
        "json": msgspec.json.Decoder(float_hook=exact).decode,
        "long": _long,
        "size": _size,
        "EPOCH": _EPOCH,
        "timedelta": timedelta,
        **reader.names,
    }
    exec("\n".join(source), made)  # noqa: S102 the source is made from our own schemas
    decode: Decode = made["decode"]
    return decode


def _long(b: bytes, p: int) -> tuple[int, int]:
    """The long at `p`, and what follows it."""
    value = shift = 0
    while True:
        byte = b[p]
        p += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a long of more than 64 bits")
    if value >= 1 << 64:
        raise ValueError("a long of more than 64 bits")
    return (value >> 1) ^ -(value & 1), p


def _size(b: bytes, p: int) -> tuple[int, int]:
    """The length or count at `p`, and what follows it. A negative count, legal in Avro, is never written."""
    value, p = _long(b, p)
    if value < 0:
        raise ValueError("a negative length")
    return value, p


class _Reader:
    """Writes one function `(bytes, position) -> (record, position)` a record."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.names: dict[str, Any] = {}

    def record(self, schema: Mapping[str, Any], cls: type[Any]) -> str:
        """The name of the record's function."""
        name = f"read_{cls.__name__}"
        hints = get_type_hints(cls)
        lines = [f"def {name}(b, p):"]
        self.names[f"{name}_cls"] = cls
        fields = {field["name"]: field["type"] for field in schema["fields"]}
        for field, avro in fields.items():
            lines += [f"    {line}" for line in self._value(avro, hints[field], f"{field}_")]
        lines.append(f"    return {name}_cls({', '.join(f'{field}={field}_' for field in fields)}), p")
        self.functions += lines
        return name

    def _value(self, avro: Any, hint: Any, x: str) -> list[str]:  # noqa: PLR0911 one a type
        """Lines that leave the value at `p` in `x`."""
        match avro:
            case ["null", other]:
                some = self._value(other, _without_none(hint), x)
                return [
                    "n = b[p]; p += 1",
                    f"if n == 0: {x} = None",
                    "elif n == 2:",
                    *(f"    {line}" for line in some),
                    "else: raise ValueError('a branch that the union does not have')",
                ]
            case {"type": "string", "logicalType": "json"}:
                return [*_SIZE, f"q = p + n; {x} = json(b[p:q]); p = q"]
            case {"type": "long", "logicalType": "timestamp-micros"}:
                return [f"{x}, p = long(b, p)", f"{x} = EPOCH + timedelta(0, 0, {x})"]
            case {"type": "array", "items": items}:
                (inner, *_) = get_args(hint)
                element = self._value(items, inner, f"{x}i")
                return [*self._blocks(x, "[]", [*element, f"{x}.append({x}i)"]), f"{x} = tuple({x})"]
            case {"type": "map", "values": values}:
                (_, inner) = get_args(hint)
                element = [*_text(f"{x}k"), *self._value(values, inner, f"{x}i"), f"{x}[{x}k] = {x}i"]
                return self._blocks(x, "{}", element)
            case {"type": "record"}:
                return [f"{x}, p = {self.record(avro, hint)}(b, p)"]
            case "string" | {"type": "string"}:
                return _text(x)
            case "long" | {"type": "long"}:
                return [f"{x}, p = long(b, p)"]
            case "boolean" | {"type": "boolean"}:
                return [f"{x} = (False, True)[b[p]]; p += 1"]
            case _:
                raise TypeError(f"expected a type that our schemas use, found {avro!r}")

    def _blocks(self, x: str, empty: str, element: list[str]) -> list[str]:
        return [
            f"{x} = {empty}",
            "while True:",
            f"    {x}n, p = size(b, p)",
            f"    if not {x}n: break",
            f"    for _ in range({x}n):",
            *(f"        {line}" for line in element),
        ]


_SIZE = ["n = b[p]; p += 1", "if n & 129: n, p = size(b, p - 1)", "else: n >>= 1"]


def _text(x: str) -> list[str]:
    return [*_SIZE, f"q = p + n; {x} = b[p:q].decode(); p = q"]


def _without_none(hint: Any) -> Any:
    """`X | None` -> X; a hint that is no union stays."""
    found = [arg for arg in get_args(hint) if arg is not type(None)]
    return found[0] if type(None) in get_args(hint) else hint

"""Strings that break programs, and the places of an OpenAPI document where they can be put."""

import json
import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

COUNT = 50
_KNOWN = (
    *(
        "\0",
        "a\0b",
        "%00",
        "\ud800",
        "\udfffx",
        "x\udc00\ud800",
        "\u202eevil\u202d",
        "\u2066\u2067",
        "\ufeff",
    ),
    *(
        "../",
        "../../../../etc/passwd",
        "..%2f..%2f",
        "/",
        "//",
        "\\",
        ".",
        "..",
        "%",
        "%zz",
        "%c0%ae",
        "%ed%a0%80",
    ),
    *("", " ", "\t", "\r\nX-Injected: 1", "\n", "\x7f", "\x85", "\u2028", "\U000e0001", "e" + "\u0301" * 400),
    *(
        "'; DROP TABLE api.job_request; --",
        '"',
        "`id`",
        "${7*7}",
        "{{7*7}}",
        "$(secrets)",
        "<script>",
        "*",
        "null",
    ),
    *(
        "NaN",
        "1e999",
        "-1",
        "9" * 400,
        "0x10",
        "2026-13-45T99:99:99Z",
        "true",
        "[" * 500,
        "{" * 500,
        "a" * 5_000,
    ),
    "\U0001f600" * 300,
)
LARGE = "m" * 1_000_000
_ALPHABET = (
    "\0\x01\x1f\x7f\x9f \t\r\n%/\\.'\"<>{}[]$&?#=;:,*|aZ0\u00e9\u202e\u2028\ud83d\udc00\ufffe\U0001f4a9"
)


def strings(seed: int) -> list[str]:
    """COUNT of them: a sample of those known to hurt, a megabyte, and some that nobody thought of."""
    chance = random.Random(seed)
    made = ["".join(chance.choices(_ALPHABET, k=chance.randint(1, 60))) for _ in range(9)]
    return [*chance.sample(_KNOWN, COUNT - 10), *made, LARGE]


@dataclass(frozen=True)
class Sent:
    """One request; the values of its path stand in it as they are sent."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    about: str = ""

    def bytes(self, key: str) -> bytes:
        """As it goes over the wire. Header values are sent as they are, whatever is in them."""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        lines = {
            "Host": "x",
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self.headers,
        }
        head = [
            f"{self.method} {self.target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in lines.items()),
        ]
        return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogatepass") + body


def escaped(text: str) -> str:
    """As one value of a path or query; what is an escape already stays one."""
    raw = text.encode("utf-8", "surrogatepass")
    return quote(raw, safe="%" if text.startswith("%") else "")


class Client:
    """One connection at a time, opened again when the server has closed it."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key
        self._socket: socket.socket | None = None

    def send(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        """Status (0: closed without an answer), headers and body; of a stream the headers alone."""
        text = sent.bytes(self._key)
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), 10)
        try:
            self._socket.sendall(text)
        except ConnectionError:
            pass  # refused before all of it was read
        try:
            status, headers, body = self._answer(self._socket, sent.method)
        except ConnectionError:
            status, headers, body = 0, {}, b""
        if not status or headers.get("connection") == "close" or "content-length" not in headers:
            self.close()
        return status, headers, body

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @staticmethod
    def _answer(client: socket.socket, method: str) -> tuple[int, dict[str, str], bytes]:
        held = b""
        while b"\r\n\r\n" not in held:
            piece = client.recv(65_536)
            if not piece:
                return 0, {}, held
            held += piece
        head, _, body = held.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        size = 0 if method == "HEAD" or status in (204, 304) else int(headers.get("content-length", 0))
        if status in (204, 304):
            headers.setdefault("content-length", "0")
        while len(body) < size and (piece := client.recv(65_536)):
            body += piece
        return status, headers, body


class Document:
    """An OpenAPI document as places where a string can be put."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Method, path and operation; what removes things comes last."""
        found = [
            (method.upper(), path, operation)
            for path, methods in self._document["paths"].items()
            for method, operation in methods.items()
        ]
        yield from sorted(found, key=lambda one: (one[0] == "DELETE", one[1]))

    def fields(self, operation: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
        """The paths of all properties of an operation's JSON body."""
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            yield from self._within(content["application/json"]["schema"], 0)

    def _within(self, schema: Mapping[str, Any], depth: int) -> Iterator[tuple[str | int, ...]]:
        if "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if depth == 4:
            return
        for name, inner in schema.get("properties", {}).items():
            yield (name,)
            yield from ((name, *rest) for rest in self._within(inner, depth + 1))
        if "items" in schema:
            yield (0,)
            yield from ((0, *rest) for rest in self._within(schema["items"], depth + 1))


def leaves(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The paths of everything within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (name,)
        yield from ((name, *rest) for rest in leaves(one))


def put(value: Any, path: tuple[str | int, ...], given: Any, *, as_name: bool = False) -> Any:
    """The value with `given` at the path, or as the name of what is there. Missing parents are made."""
    first, *rest = path
    if isinstance(first, int):
        items = [*value] if isinstance(value, list) and value else [None]
        items[first] = put(items[first], tuple(rest), given, as_name=as_name) if rest else given
        return items
    members = dict(value) if isinstance(value, dict) else {}
    if rest:
        members[first] = put(members.get(first), tuple(rest), given, as_name=as_name)
    elif as_name:
        members[given] = members.pop(first, None)
    else:
        members[first] = given
    return members

"""What commands read: documents from files or stdin, and values from the command line."""

import json
import sys
from pathlib import Path
from typing import Any

from services.cli.failure import Exit, Failed
from services.jobs import documents


def text(file: Path) -> str:
    """A file as text; `-` is stdin. Raises Failed."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "what is not UTF-8"
        raise Failed(f"{file}: expected a readable file, found {found}", Exit.USAGE_OR_CANCELLED) from None


def document(file: Path) -> Any:
    """The JSON or YAML value of a file, read as the api reads it. Raises Failed."""
    try:
        return documents.parse_yaml(text(file).encode())
    except documents.Malformed as error:
        faults = "; ".join(map(str, error.errors)) or str(error)
        raise Failed(f"{file}: expected JSON or YAML: {faults}", Exit.USAGE_OR_CANCELLED) from None


def body(file: Path | None) -> dict[str, Any]:
    """The object of a file; no file, an empty one. Raises Failed."""
    found = {} if file is None else document(file)
    if not isinstance(found, dict):
        raise Failed(f"{file}: expected an object, found {type(found).__name__}", Exit.USAGE_OR_CANCELLED)
    return found


def parameter(given: str, option: str) -> tuple[str, Any]:
    """NAME=VALUE, where VALUE is JSON or else text. Raises Failed."""
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise Failed(f"{option}: expected NAME=VALUE, found {given!r}", Exit.USAGE_OR_CANCELLED)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value

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
    if not _is_json(value):
        return name, value
    try:
        return name, documents.parse_json(value.encode(errors="surrogateescape"))
    except documents.Malformed as error:
        message = f"{option} {name}: expected JSON as the api reads it, or text in quotes: {error}"
        raise Failed(message, Exit.USAGE_OR_CANCELLED) from None


def _is_json(value: str) -> bool:
    """Whether it was meant as JSON. Python's reader takes more than the api: NaN, 1e999, doubled keys."""
    try:
        json.loads(value)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # too many digits, too many levels
        pass
    return True

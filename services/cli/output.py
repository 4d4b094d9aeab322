"""What commands print: text for people, which may change, and JSON for programs, which may not.

`--json` is always one valid document, also when nothing was found; `--jsonl` is one document a line, as it
comes. Both go to stdout and nothing else does; whatever else there is to say goes to stderr.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsJsonLines = Annotated[bool, typer.Option("--jsonl", help="Print JSON, one document a line.")]


def json_document(value: Any) -> None:
    """One document, indented."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def json_line(value: Any) -> None:
    """One document on one line, at once."""
    typer.echo(msgspec.json.encode(value).decode())
    sys.stdout.flush()


def one(item: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """One thing: its document, or as `show` prints it."""
    if as_json:
        json_document(item)
    else:
        show(item)


def listing(
    items: Iterable[Any], as_json: bool, as_lines: bool, show: Callable[[list[Any]], None], empty: str
) -> None:
    """A list: one document, a document a line, or as `show` prints it; `empty` is what to note of none."""
    if as_lines:
        for item in items:
            json_line(item)
        return
    found = list(items)
    if as_json:
        json_document(found)
    elif found:
        show(found)
    else:
        note(empty)


def note(text: str) -> None:
    """Something for the person at the terminal; never part of the result."""
    typer.echo(text, err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, numbers to the right; nothing is cut."""
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(*cells, strict=True)) if cells else [()] * len(headings)
    widths = [max(map(len, (heading, *column))) for heading, column in zip(headings, columns, strict=True)]
    numeric = [all(text.replace(",", "").isdigit() for text in column) for column in columns]
    for row in [list(headings), *cells]:
        line = "  ".join(
            text.rjust(width) if is_numeric else text.ljust(width)
            for text, width, is_numeric in zip(row, widths, numeric, strict=True)
        )
        typer.echo(line.rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """`name   value` lines; what is None is left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        typer.echo(f"{name.ljust(width)}  {text}")


def instant(text: str | datetime | None) -> str | None:
    """`2026-01-05 09:00:00Z`: UTC, to the second."""
    if text is None:
        return None
    at = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def count(number: int, noun: str) -> str:
    """`1 row`, `18,460 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def amount(rows: int, bytes_: int) -> str:
    """`18,460 rows, 1.7 MB`."""
    return f"{count(rows, 'row')}, {size(bytes_)}"


def size(bytes_: int) -> str:
    """`1.7 MB`; powers of 1000."""
    value = float(bytes_)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return count(bytes_, "byte") if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)

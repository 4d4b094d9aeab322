"""`millstream dlq`: records that some service could not handle: look, send again, put aside."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import typer

from services.cli import letters, output, targets, topics
from services.cli import log as logs
from services.cli.failure import Exit, Failed
from services.cli.letters import Letter
from services.cli.log import Log
from services.cli.output import AsJson, AsJsonLines
from services.contracts.errors import Undecodable
from services.contracts.names import is_sealed
from services.contracts.topics import Kind
from services.runtime import schemas
from services.runtime.kafka import Publisher
from services.runtime.settings import Kafka

ERROR_CHARS = 100
PREVIEW_BYTES = 256

app = typer.Typer(no_args_is_help=True, help="Look at dead letters, send them again or put them aside.")
Address = Annotated[str, typer.Argument(metavar="LETTER", help="<topic>/<partition>/<offset>, as listed.")]
Addresses = Annotated[
    list[str] | None, typer.Argument(metavar="[LETTER]...", help="<topic>/<partition>/<offset>, as listed.")
]
Topic = Annotated[str | None, typer.Option(help="Only of this topic, for example job.requested.")]
Reason = Annotated[str | None, typer.Option(help="Only with this reason, for example undecodable.")]


@app.command("list")
def list_all(
    context: typer.Context,
    topic: Topic = None,
    reason: Reason = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that are settled.")] = False,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """List dead letters that wait for somebody."""
    with logs.opened(targets.chosen(context).broker()) as log:
        found = [letter for letter in _read(log, topic, reason) if every or letter.settled_by is None]
    if as_json:
        output.json_document([_summary(letter) for letter in found])
    elif as_lines:
        for letter in found:
            output.json_line(_summary(letter))
    elif found:
        headings = ("LETTER", "AT", "STATE", "REASON", "BY", "KEY", "ERROR")
        output.table(headings, [_row(letter) for letter in found])
    else:
        output.note("no dead letters" if every else "no dead letter waits for anybody")


@app.command()
def show(
    context: typer.Context,
    address: Address,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the value's bytes to stdout, nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why it is one, its headers and its record, sealed values left out."""
    target = targets.chosen(context)
    with logs.opened(target.broker()) as log:
        letter = letters.find(log, address, _topics())
    try:
        letter = replace(letter, record=letters.whole(letter, target.blobs))
    except Failed as away:
        if raw:
            raise
        output.note(str(away))  # its head and its reason can be shown
    if raw:
        sys.stdout.buffer.write(letter.record.value or b"")
        return
    record, problem = _decoded(letter)
    headers = [[name, value.decode("utf-8", "replace")] for name, value in letter.original_headers]
    if as_json:
        output.json_document({**_summary(letter), "headers": headers, "record": record, "problem": problem})
        return
    summary = _summary(letter)
    summary["at"] = output.instant(summary["at"])
    output.fields((name, value) for name, value in summary.items() if name != "settled")
    if letter.settled_by is not None:
        output.fields((("settled", _settled_text(letter)),))
    typer.echo("")
    output.fields((name, value) for name, value in headers)
    typer.echo("")
    if problem is None:
        output.json_document(record)
    else:
        typer.echo(f"not decoded: {problem}\n{_preview(letter.record.value or b'')}")


@app.command()
def resend(
    context: typer.Context,
    addresses: Addresses = None,
    every: Annotated[bool, typer.Option("--all", help="All that wait, with --topic and --reason.")] = False,
    topic: Topic = None,
    reason: Reason = None,
    again: Annotated[bool, typer.Option("--again", help="Also what is settled already.")] = False,
) -> None:
    """Send dead letters again to where they came from: same key, same bytes, same headers.

    A rejected request is not sent: its execution id stays rejected. Submit it anew under another id.
    """
    target = targets.chosen(context)
    kafka = target.broker()
    with logs.opened(kafka) as log, _publisher(kafka) as publisher:
        found = _chosen(log, addresses or [], every, topic, reason, again=again)
        final = [letter for letter in found if letter.reason == letters.REJECTED]
        if final and not every:
            raise Failed("\n".join(map(_final_text, final)))
        for letter in found:
            if letter.reason == letters.REJECTED:
                output.note(f"not sent: {_final_text(letter)}")
            else:
                typer.echo(f"{letter.address} -> {letters.resend(publisher, letter, target.blobs)}")
    if final:
        raise typer.Exit(Exit.FAILED)


@app.command()
def discard(
    context: typer.Context,
    addresses: Addresses = None,
    note: Annotated[str, typer.Option("--note", help="Why nobody needs it; kept beside it.")] = "",
    every: Annotated[bool, typer.Option("--all", help="All that wait, with --topic and --reason.")] = False,
    topic: Topic = None,
    reason: Reason = None,
) -> None:
    """Put dead letters aside: they stay until their time is over, and are listed with --all only."""
    if not note.strip():
        raise Failed("--note: expected why nobody needs it, found nothing", Exit.USAGE_OR_CANCELLED)
    kafka = targets.chosen(context).broker()
    with logs.opened(kafka) as log, _publisher(kafka) as publisher:
        for letter in _chosen(log, addresses or [], every, topic, reason, again=False):
            letters.settle(publisher, letter, letters.DISCARDED, note)
            typer.echo(f"{letter.address} discarded")


def _chosen(
    log: Log, addresses: Sequence[str], every: bool, topic: str | None, reason: str | None, *, again: bool
) -> list[Letter]:
    """The letters that the command line names. Raises Failed before anything is done to one of them."""
    if every == bool(addresses):
        raise Failed("expected letters, or --all (with --topic, --reason)", Exit.USAGE_OR_CANCELLED)
    if every:
        found = [letter for letter in _read(log, topic, reason) if again or letter.settled_by is None]
        if not found:
            output.note("no dead letter waits for anybody")
        return found
    found = [letters.find(log, address, _topics()) for address in addresses]
    for letter in found:
        if letter.settled_by is not None and not again:
            raise Failed(f"{letter.address}: expected one that waits, found it {_settled_text(letter)}")
    return found


def _read(log: Log, topic: str | None, reason: str | None) -> Iterator[Letter]:
    names = _topics()
    if topic is not None:
        wanted = [name for name in names if topic in (name, name.removesuffix(".dlq"))]
        if not wanted:
            raise Failed(
                f"--topic: expected one of {', '.join(names)}, found {topic}", Exit.USAGE_OR_CANCELLED
            )
        names = wanted
    return (letter for letter in letters.read(log, names) if reason in (None, letter.reason))


def _topics() -> list[str]:
    return [topic.name for topic in topics.declared() if topic.kind is Kind.DEAD_LETTER]


@contextmanager
def _publisher(kafka: Kafka) -> Iterator[Publisher]:
    made = Publisher(kafka, "millstream-cli")
    try:
        yield made
    finally:
        made.close(5)


def _summary(letter: Letter) -> dict[str, Any]:
    """A letter without its record: the same fields for people and for programs."""
    record, settled = letter.record, letter.settled_by
    return {
        "letter": letter.address,
        "at": record.at,
        "state": letter.state,
        "reason": letter.reason,
        "error": record.header("ms_error"),
        "service": record.header("ms_service"),
        "origin": record.header("ms_origin"),
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "bytes": len(record.value or b""),
        "settled": None
        if settled is None
        else {
            "at": settled.at,
            "by": settled.header(letters.SETTLED_BY),
            "note": settled.header(letters.NOTE),
        },
    }


def _row(letter: Letter) -> tuple[object, ...]:
    summary = _summary(letter)
    error = str(summary["error"]).splitlines()[0]
    short = error if len(error) <= ERROR_CHARS else f"{error[:ERROR_CHARS]}..."
    names = ("state", "reason", "service", "key")
    return (letter.address, output.instant(summary["at"]), *(summary[name] for name in names), short)


def _settled_text(letter: Letter) -> str:
    settled = _summary(letter)["settled"]
    where = "to " if letter.state == letters.RESENT else ""
    return f"{letter.state} {output.instant(settled['at'])} by {settled['by']}: {where}{settled['note']}"


def _final_text(letter: Letter) -> str:
    return (
        f"{letter.address}: expected one that could be taken now, found a rejected request, whose execution"
        " stays rejected; mend what was refused and submit it again under a new execution id"
    )


def _decoded(letter: Letter) -> tuple[Any, str | None]:
    """(the record as JSON, None), or (None, why there is none)."""
    try:
        record = schemas.codec().decode(letter.topic, letter.record.value)
    except Undecodable as error:
        return None, str(error)
    return _without_secrets(msgspec.to_builtins(record)), None


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_secrets(inner) for name, inner in value.items()}
        case list():
            return [_without_secrets(inner) for inner in value]
        case str() if is_sealed(value):
            return "(sealed)"
        case _:
            return value


def _preview(value: bytes) -> str:
    """The first bytes, in hex and as text."""
    lines = [value[at : at + 16] for at in range(0, min(len(value), PREVIEW_BYTES), 16)]
    text = [
        f"{line.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in line)}" for line in lines
    ]
    more = (
        [f"... {len(value) - PREVIEW_BYTES} more bytes; --raw writes them all"]
        if len(value) > PREVIEW_BYTES
        else []
    )
    return "\n".join([*text, *more])

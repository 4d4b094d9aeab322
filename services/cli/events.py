"""`millstream events`: the log itself, read from Kafka: shown decoded, and verified."""

import heapq
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from services.cli import log as logs
from services.cli import output, targets, verify, watching
from services.cli.failure import Exit, Failed
from services.cli.log import Bounds, Log, Spot, Stored
from services.cli.output import AsJson, AsJsonLines
from services.contracts import events as contract
from services.contracts import public
from services.contracts.errors import Undecodable
from services.contracts.partition import partition_of
from services.jobs.values import instant
from services.runtime import entropy, schemas

TOPIC = verify.TOPIC
UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}

app = typer.Typer(no_args_is_help=True, help="Read and verify the log of events, on Kafka.")
Topic = Annotated[str, typer.Option(help="A copy of the log under another name.")]


@dataclass(frozen=True)
class Filter:
    """Which events are wanted; None: all."""

    types: frozenset[str] = frozenset(contract.TYPES)
    execution_id: str | None = None
    tenant: str | None = None

    def admits(self, event: contract.Event) -> bool:
        """Whether the event is wanted."""
        return (
            contract.type_of(event) in self.types
            and self.execution_id in (None, event.execution_id)
            and self.tenant in (None, event.tenant)
        )


EVERYTHING = Filter()


@app.command()
def tail(
    context: typer.Context,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", help="Only this type, or S2's name of a group (on-start). Repeatable."),
    ] = None,
    execution: Annotated[
        str | None, typer.Option("--execution", "-e", help="Only of this execution.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    count: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many, the newest.")] = 20,
    since: Annotated[
        str | None,
        typer.Option(help="All since an instant (2026-01-05T09:00:00Z) or for a time (15m, 2h, 7d)."),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="All there are, partition by partition.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends it.")
    ] = False,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
    topic: Topic = TOPIC,
) -> None:
    """Show events, decoded, without sealed values: the newest ones, or as the options say."""
    if follow and as_json:
        raise Failed("--follow never ends, so it goes with --jsonl, not with --json", Exit.USAGE_OR_CANCELLED)
    wanted = Filter(_types(type_ or []), execution, tenant)
    began = None if since is None else _instant(since)
    show = output.json_line if as_lines else _show
    with logs.opened(targets.chosen(context).broker()) as log:
        bounds = log.bounds(_spots(log, topic, execution))
        if from_beginning:
            found = _views(log.read(bounds), wanted)
        elif began is not None:
            found = iter(sorted(_views(log.read(_since(log, bounds, began)), wanted), key=_order))
        else:
            # a filter may want what lies far back
            newest = bounds if wanted != EVERYTHING else _last(bounds, count)
            found = iter(
                sorted(heapq.nlargest(count, _views(log.read(newest), wanted), key=_order), key=_order)
            )
        if as_json:
            output.json_document(list(found))
            return
        shown = [show(event) for event in found]
        if not shown and not follow:
            output.note("no events" if wanted == EVERYTHING else "no event fits these filters")
        if follow:
            for event in _views(log.follow({spot: end for spot, (_, end) in bounds.items()}), wanted):
                show(event)


@app.command("verify")
def verify_(
    context: typer.Context,
    execution: Annotated[str | None, typer.Option("--execution", "-e", help="Only this execution.")] = None,
    as_json: AsJson = False,
    topic: Topic = TOPIC,
) -> None:
    """Check that nobody edited, dropped, reordered or inserted an event; exit code 1 where somebody did.

    Reads the log from its first record and computes every hash again. What no log can show: a cut at its very
    end, and a rewriting of everything up to the end of an execution.
    """
    say = output.note if sys.stderr.isatty() else lambda _: None
    with logs.opened(targets.chosen(context).broker()) as log:
        report = verify.verify(log, schemas.codec(), topic, execution, say)
    if execution is not None and not report.events:
        raise Failed(f"{execution}: expected events on {topic}, found none")
    if as_json:
        output.json_document(asdict(report))
    else:
        for finding in report.findings:
            place = f"{finding.execution_id} sequence {finding.sequence or '-'}"
            typer.echo(f"{finding.kind:<9}  {place}  {finding.address or '-'}  {finding.message}")
        _summary(report)
    if report.findings:
        raise typer.Exit(Exit.FAILED)


def _summary(report: verify.Report) -> None:
    events, of = output.count(report.events, "event"), output.count(report.executions, "execution")
    read = f"{report.topic}: {events} of {of} ({report.open} open)"
    again = f", {report.repeated} of them written twice" if report.repeated else ""
    faults = (
        output.count(len(report.findings), "fault")
        if report.findings
        else "nothing edited, dropped, moved or inserted"
    )
    output.note(f"{read}{again}; {faults}")


def _show(event: Mapping[str, Any]) -> None:
    typer.echo(f"{event['occurred_at'][:10]}  {event['execution_id']}  {watching.line(event)}")
    sys.stdout.flush()


def _types(names: Sequence[str]) -> frozenset[str]:
    try:
        return contract.matching(tuple(names))
    except KeyError as error:
        known = ", ".join([*contract.TYPES, *contract.ALIASES])
        raise Failed(f"--type: expected one of {known}, found {error}", Exit.USAGE_OR_CANCELLED) from None


def _instant(text: str) -> datetime:
    """An ISO instant, or a time before now."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return entropy.LocalClock().now() - int(match[1]) * UNITS[match[2]]
    at = instant(text)
    if at is None:
        expected = "an instant with offset (2026-01-05T09:00:00Z) or a time (15m, 2h, 7d)"
        raise Failed(f"--since: expected {expected}, found {text!r}", Exit.USAGE_OR_CANCELLED)
    return at


def _spots(log: Log, topic: str, execution: str | None) -> list[Spot]:
    """Where the wanted events lie: those of one execution all lie on one partition."""
    every = log.spots([topic])
    return every if execution is None else [every[partition_of(execution.encode(), len(every))]]


def _last(bounds: Bounds, count: int) -> Bounds:
    return {spot: (max(first, end - count), end) for spot, (first, end) in bounds.items()}


def _since(log: Log, bounds: Bounds, at: datetime) -> Bounds:
    starts = log.offsets_at(list(bounds), at)
    return {spot: (end if starts[spot] < 0 else starts[spot], end) for spot, (_, end) in bounds.items()}


def _views(records: Iterable[Stored], wanted: Filter) -> Iterator[Mapping[str, Any]]:
    """The wanted events as JSON; what is none is named on stderr."""
    codec = schemas.codec()
    for record in records:
        try:
            event = codec.decode(TOPIC, record.value)
        except Undecodable as error:
            output.note(f"{record.address}: {error}")
            continue
        if isinstance(event, contract.Facts) and wanted.admits(event):
            yield public.view(event)


def _order(event: Mapping[str, Any]) -> tuple[str, str, int]:
    return event["occurred_at"], event["execution_id"], event["sequence"]

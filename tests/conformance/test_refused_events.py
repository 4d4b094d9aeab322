"""An event that the database refuses, as a case of each reader: a dead letter, and the rest goes on."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from services.api.projector import Projector
from services.contracts import envelope, events
from services.contracts.commands import Callback, JobRequested
from services.contracts.partition import partition_of
from services.notifier.matcher import Matcher
from services.runtime.entropy import LocalClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.handler import Handler
from services.runtime.processor.loop import Processor
from services.runtime.processor.types import DataError, Row
from services.runtime.schemas import codec
from tests.claims import in_memory
from tests.serving import facts

BAD, GOOD = "ab" * 20, "cd" * 20
READERS: list[Callable[[], Handler[Any]]] = [
    lambda: Projector(codec()),
    lambda: Matcher(codec()),
]


def story(execution: str) -> Sequence[events.Event]:
    request = JobRequested(
        execution_id=execution,
        tenant="acme",
        requested_at=LocalClock().now(),
        created_by="ann",
        name="report",
        job_type="noop",
        callbacks=(Callback(events=(), url="https://receiver.example/hook", headers={}, secret=None),),
    )
    return [
        events.ExecutionAccepted(**facts(execution, 1), request=request, request_hash="00", plan=()),
        events.ExecutionStarted(**facts(execution, 2)),
        events.StepRunning(**facts(execution, 3), step="s", attempt=1, take_id="t", worker="w"),
        events.StepCompleted(**facts(execution, 4), step="s", attempt=1, output=None),
        events.ExecutionCompleted(**facts(execution, 5), files=0, rows=0, bytes=0),
    ]


def refuse(_: MemoryStore, rows: Sequence[Row]) -> None:
    """As a database would that does not take one event."""
    for row in rows:
        if row.values.get("execution_id") == BAD and row.values.get("sequence") == 3:
            raise DataError("the row of event 3 is refused")


@pytest.mark.parametrize("reader", READERS, ids=["api", "notifier"])
@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (1, 2, 4, 5, 3), (1, 3, 4, 2, 5)], ids=str)
def test_an_event_that_the_database_refuses_counts_as_seen(
    reader: Callable[[], Handler[Any]], order: Sequence[int]
) -> None:
    broker, tables = Broker(), Tables(LocalClock())
    broker.create("execution.events", "execution.events.dlq")
    handler = reader()
    log = MemoryLog(broker)
    loop = Processor(handler, MemoryStore(tables, refuse), log, in_memory())
    log.join(handler.inputs)
    told = {event.sequence: event for event in story(BAD)}
    for event in [*(told[sequence] for sequence in order), *story(GOOD)]:
        index = partition_of(event.execution_id.encode(), 12)
        broker.append(envelope.event(event, codec().encode(event), b""), index)
    for _ in range(10):
        loop.turn(threading.Event())
    kept = [row for row in tables.rows if row.kind in ("event", "delivery")]
    seen = {id: {r.values["sequence"] for r in kept if r.values["execution_id"] == id} for id in (BAD, GOOD)}
    assert seen[GOOD] == {1, 2, 3, 4, 5}
    assert {1, 5} <= seen[BAD] and 3 not in seen[BAD]
    letters = broker.records("execution.events.dlq")
    assert letters or order != (1, 2, 3, 4, 5)
    if isinstance(handler, Projector):
        row = tables.states[BAD]
        assert row.body is not None
        state = handler.decode(BAD, row.body)
        assert (state.sequence, state.incomplete, state.status) == (5, True, "completed")
        assert state.parked == {}

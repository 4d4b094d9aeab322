"""A manager on the loop, in memory, and good records for it."""

import threading
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from services.contracts import envelope, events, ids
from services.contracts.commands import (
    Command,
    ExecutionCommand,
    JobRequested,
    StepOutcome,
    StepReport,
    StepRequested,
)
from services.contracts.envelope import Outgoing
from services.contracts.partition import partition_of
from services.contracts.topics import LOOP_PARTITIONS
from services.executor.core.execution import Execution
from services.executor.manager import INPUTS, OUTPUTS, Manager, State
from services.runtime.entropy import LocalClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.batch import Batch, Timer, route_all
from services.runtime.processor.loop import Processor
from services.runtime.processor.types import Input
from services.runtime.schemas import codec
from tests.claims import in_memory

NOW = LocalClock().now()
TENANT = "acme"
DEAD = tuple(f"{topic}.dlq" for topic in INPUTS)


class House:
    """A manager on the loop, in memory, turned by the test."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.broker.create(*INPUTS, *OUTPUTS, *DEAD)
        store, log = MemoryStore(Tables(LocalClock())), MemoryLog(self.broker)
        self.loop = Processor(Manager(codec()), store, log, in_memory(), OUTPUTS)
        log.join(INPUTS)

    def say(self, record: Command) -> None:
        self.broker.append(envelope.command(record, codec().encode(record)))

    def turn(self) -> None:
        self.loop.turn(threading.Event())
        self.loop.turn(threading.Event())

    def history(self, execution_id: str) -> list[events.Event]:
        found = [codec().decode("execution.events", r.value) for r in self.broker.records("execution.events")]
        return [event for event in found if getattr(event, "execution_id", "") == execution_id]  # type: ignore[misc]

    def names(self, execution_id: str) -> list[str]:
        return [events.type_of(event) for event in self.history(execution_id)]

    def dead(self, topic: str) -> list[tuple[str, str, bytes | None]]:
        """Reason, message and value of each dead letter of a topic."""
        return [
            (headers["ms_reason"].decode(), headers["ms_error"].decode(), record.value)
            for record in self.broker.records(f"{topic}.dlq")
            for headers in [dict(record.headers)]
        ]

    def orders(self) -> list[StepRequested]:
        records = self.broker.records("step.requested")
        return [codec().decode("step.requested", record.value) for record in records]  # type: ignore[misc]


def job(key: str = "one", **changes: Any) -> JobRequested:
    wanted = JobRequested(
        execution_id=ids.execution_id(TENANT, "shop", "topic", key),
        tenant=TENANT,
        requested_at=NOW,
        created_by="shop",
        name="nightly",
        job_type="noop",
        parameters={"params": {}, "time_range": None},
    )
    return replace(wanted, **changes)


def order(wanted: JobRequested, step: str = "noop", attempt: int = 1) -> str:
    return ids.attempt_id(wanted.execution_id, step, attempt)


def outcome(attempt_id: str, wanted: JobRequested | None = None, **changes: Any) -> StepOutcome:
    said = StepOutcome(
        execution_id=(wanted or job()).execution_id,
        tenant=TENANT,
        attempt_id=attempt_id,
        take_id="t1",
        worker="w1",
        outcome="done",
        finished_at=NOW,
    )
    return replace(said, **changes)


def claim(attempt_id: str, **changes: Any) -> StepReport:
    said = StepReport(
        execution_id=job().execution_id,
        tenant=TENANT,
        attempt_id=attempt_id,
        take_id="t1",
        worker="w1",
        kind="claim",
        lease_s=20,
        reported_at=NOW,
    )
    return replace(said, **changes)


def command(
    kind: str, wanted: JobRequested | None = None, key: str = "1", **changes: Any
) -> ExecutionCommand:
    """Somebody wants something of an execution; another key is another command."""
    execution_id = (wanted or job()).execution_id
    given = ExecutionCommand(
        command_id=ids.command_id(TENANT, "alice", execution_id, kind, key),
        execution_id=execution_id,
        tenant=TENANT,
        kind=kind,
        requested_by="alice",
        requested_at=NOW,
        rerun_id=ids.rerun_id(execution_id, 1) if kind == "rerun" else None,
    )
    return replace(given, **changes)


class Desk:
    """A manager without a loop: records and timers one by one, at the instant that the test says."""

    def __init__(self) -> None:
        self.now = NOW
        self.manager = Manager(codec())
        self.states: dict[str, State | None] = {}
        self.due: dict[str, datetime | None] = {}
        self.out: list[Outgoing] = []
        self._offset = 0

    def say(self, record: Command) -> list[str]:
        """Hand a record in; what came of it, as names (`step.running`, `step.requested`, ...)."""
        return self.hand_in(envelope.command(record, codec().encode(record)))

    def hand_in(self, record: Outgoing) -> list[str]:
        """Likewise, for bytes."""
        assert record.key is not None
        part = partition_of(record.key, LOOP_PARTITIONS)
        self._offset += 1
        taken = Input(record.topic, part, self._offset, record.key, record.value, record.headers)
        self.manager.begin()
        batch = Batch(self.manager, self.states, self.now)
        batch.feed(taken, route_all(self.manager, [taken])[0])
        return self._keep(batch)

    def wait(self, seconds: float) -> list[str]:
        """Let time pass, firing each timer at its instant."""
        end, told = self.now + timedelta(seconds=seconds), []
        while (due := self._next(end)) is not None:
            self.now, key = due
            self.manager.begin()
            batch = Batch(self.manager, self.states, self.now)
            batch.fire(Timer(key, partition_of(key.encode(), LOOP_PARTITIONS), NOW - timedelta(days=1)))
            told += self._keep(batch)
        self.now = end
        return told

    def wake(self, key: str) -> list[str]:
        """It is this execution's turn (Handler.wanted)."""
        self.manager.begin()
        batch = Batch(self.manager, self.states, self.now)
        batch.fire(Timer(key, partition_of(key.encode(), LOOP_PARTITIONS), self.now, wanted=True))
        return self._keep(batch)

    def state(self, wanted: JobRequested | None = None) -> Execution:
        """The execution as it stands."""
        found = self.states[(wanted or job()).execution_id]
        assert isinstance(found, Execution)
        return found

    def sent(self, topic: str) -> list[Any]:
        """Every record that went to this topic."""
        return [codec().decode(topic, record.value) for record in self.out if record.topic == topic]

    def history(self, execution_id: str) -> list[events.Event]:
        """The events of one execution."""
        return [event for event in self.sent("execution.events") if event.execution_id == execution_id]

    def orders(self) -> list[StepRequested]:
        """Every step that was asked for."""
        return [*self.sent("step.requested"), *self.sent("step.requested.long")]

    def _next(self, end: datetime) -> tuple[datetime, str] | None:
        waiting = [(max(at, self.now), key) for key, at in self.due.items() if at is not None and at <= end]
        return min(waiting, default=None)

    def _keep(self, batch: Batch[State]) -> list[str]:
        told: list[str] = []
        for part in batch.turn.parts.values():
            self.out += part.out
            told += [self._name(record) for record in part.out]
            for key, row in part.states.items():
                # Through its bytes, as a store would.
                self.states[key] = None if row.body is None else self.manager.decode(key, row.body)
                self.due[key] = row.due_at
        self.manager.committed()
        for index, part in batch.turn.parts.items():
            for key, row in part.states.items():
                self.manager.remember(index, key, row.memo)
        return told

    def _name(self, record: Outgoing) -> str:
        return (
            dict(record.headers)["ce_type"].decode() if record.topic == "execution.events" else record.topic
        )

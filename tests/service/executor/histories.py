"""Random histories of a pipeline: a manager on the loop in memory that crashes, workers that die and double.

Time is the test's. Topics are read in any order and any portions; records of one partition stay in order, as
Kafka keeps them. What a worker or a person says may be said twice.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from services.contracts import envelope, ids
from services.contracts.commands import (
    Command,
    ExecutionCommand,
    StepOutcome,
    StepReport,
    StepRequested,
)
from services.contracts.envelope import Outgoing
from services.contracts.events import Event, PlannedStep
from services.contracts.flow import Action
from services.executor.core.admission import Windows
from services.executor.core.execution import Execution
from services.executor.manager import INPUTS, OUTPUTS, Manager, State
from services.runtime.entropy import RemoteClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.loop import Limits, Processor
from services.runtime.processor.types import Input, PartCommit, Row, StateRow
from services.runtime.schemas import codec
from tests.claims import in_memory
from tests.conformance import permit_books
from tests.service.executor.house import DEAD, NOW, TENANT, command
from tests.service.executor.pipelines import Pipelines, approval, call, goto, request, step

KINDS = ("approve", "reject", "remark", "pause", "resume", "cancel", "amend", "start", "rerun", "explode")
PEOPLE = ("alice", "carol", "shop")
CONDITIONS = ("$.execution.error = null", "$.execution.error != null", "$.amount")
LIMITED = [{"key": "tenant", "max": 1, "holds_paused": False}]
ROUNDS_MAX = 400
FAILED = {"reason": "http_503", "message": "away"}


class Crash(Exception):
    """The manager's process died here."""


class Clock:
    """The database's clock."""

    def __init__(self) -> None:
        self.instant = NOW

    def now(self) -> datetime:
        return self.instant


class World:
    """One history."""

    def __init__(self, pipelines: Pipelines, seed: int) -> None:
        self.random = Random(seed)
        self.clock = Clock()
        self.broker = Broker()
        self.broker.create(*INPUTS, *OUTPUTS, *DEAD)
        self.tables = Tables(self.clock)
        self.crash_in: int | None = None
        self.commands: list[ExecutionCommand] = []
        self.read_orders = 0
        pipelines.steps = plan(self.random)
        self.books: permit_books.Books = {}
        self.windows = self.random.choice([Windows(), Windows(1, 1, 1, 1), Windows(2, 1, 2, 1)])
        self.wanted = request(
            limits=self.random.choice([None, None, LIMITED, [{**LIMITED[0], "holds_paused": True}]]),
            hold=self.random.random() < 0.1,
            run_at=NOW + timedelta(seconds=30) if self.random.random() < 0.1 else None,
            timeout_s=self.random.choice([None, None, None, 3000]),
            owner="shops-owner",
        )
        self.loop = self._started()
        self.say(self.wanted)

    # ------------------------------------------------------------ moves

    def move(self, verb: str, pick: int) -> None:
        """One thing happens; the manager may or may not look at it now."""
        match verb:
            case "turn":
                self.turn()
            case "crash":
                self.crash_in = pick % 6
                self.turn()
            case "restart":
                self.loop = self._started()
            case "time":
                self.clock.instant += timedelta(seconds=(1, 3, 8, 21, 60, 600)[pick % 6])
                self.turn()
            case "again":
                self.say(self._known(pick))
            case "command":
                self.say(self._command(KINDS[pick % len(KINDS)], pick))
            case _:
                self._work(verb, pick)

    def turn(self) -> None:
        """The manager's loop turns; a crash leaves what it had committed to the next."""
        try:
            self.loop.turn(threading.Event())
        except Crash:
            self.loop = self._started()
        self.crash_in = None

    def say(self, record: Command) -> None:
        """Append a record to its topic."""
        self.broker.append(envelope.command(record, codec().encode(record)))

    def drain(self) -> None:
        """People and workers do what is asked of them, until everything has ended."""
        self.crash_in = None
        for number in range(ROUNDS_MAX):
            for _ in range(12):
                self.turn()
            if all(state.status.terminal for state in self.executions()) and not self._unread():
                return
            for order in self.orders():
                self.say(said(order, "done", f"last-{order.attempt}", self.random))
            if number % 3 == 0:
                live = [state.execution_id for state in self.executions() if not state.status.terminal]
                for execution_id in live:
                    for kind in ("start", "resume", "approve"):
                        self.say(self._command(kind, 10_000 + number, execution_id))
            else:
                self.clock.instant += timedelta(seconds=700)
        raise AssertionError("it does not end")

    # ------------------------------------------------------------ what is seen

    def executions(self) -> list[Execution]:
        """Every execution as stored."""
        manager = Manager(codec())
        rows = [row for row in self.tables.states.values() if row.body is not None]
        states = [manager.decode(row.key, row.body) for row in rows if row.body is not None]
        return [state for state in states if isinstance(state, Execution)]

    def orders(self) -> list[StepRequested]:
        """Every order, doubled ones too."""
        found = (*self.broker.records("step.requested"), *self.broker.records("step.requested.long"))
        return [codec().decode(record.topic, record.value) for record in found]  # type: ignore[misc]

    def history(self, execution_id: str) -> list[Event]:
        """The events of an execution, once each; what is told twice must be told alike."""
        told: dict[str, bytes | None] = {}
        for record in self.broker.records("execution.events"):
            headers = dict(record.headers)
            assert told.setdefault(headers["ce_id"].decode(), record.value) == record.value
        found: list[Any] = [codec().decode("execution.events", value) for value in told.values()]
        mine = (event for event in found if event.execution_id == execution_id)
        return sorted(mine, key=lambda event: event.sequence)

    # ------------------------------------------------------------ inside

    def _started(self) -> "Processor[State]":
        self.broker.members.clear()
        log = Log(self)
        loop = Loop(Manager(codec(), self.windows), Store(self), log, in_memory(), OUTPUTS, Limits(idle_s=0))
        loop.clock = self.clock
        log.join(INPUTS)
        return loop

    def _unread(self) -> bool:
        offsets = self.tables.offsets
        return any(
            offsets.get((topic, index), ("", 0))[1] < len(records)
            for topic in INPUTS
            for index, records in enumerate(self.broker.topics[topic].partitions)
            if records
        )

    def _work(self, verb: str, pick: int) -> None:
        orders = self.orders()
        if orders:
            order = orders[-1 - pick % min(len(orders), 4)]
            self.say(said(order, verb, f"take-{pick % 2}", self.random))

    def _command(self, kind: str, pick: int, to: str | None = None) -> ExecutionCommand:
        execution_id = to or self.wanted.execution_id
        by = PEOPLE[pick % 7 % len(PEOPLE)] if pick < 10_000 else "dave"
        given = command(
            kind,
            self.wanted,
            key=str(pick),
            execution_id=execution_id,
            command_id=ids.command_id(TENANT, by, execution_id, kind, str(pick)),
            requested_by=by,
            requested_at=self.clock.instant,
            role="operator",
            reason="because" if pick % 5 else None,
            values={"amount": pick % 3} if kind == "amend" else {},
            rerun_id=ids.rerun_id(execution_id, pick) if kind == "rerun" else None,
            reuse_results=pick % 2 == 0,
        )
        self.commands.append(given)
        return given

    def _known(self, pick: int) -> Command:
        return self.commands[pick % len(self.commands)] if self.commands else self.wanted


class Loop(Processor[State]):
    """The loop, on the test's clock."""

    clock: Clock

    def _synced_clock(self) -> RemoteClock:
        return self.clock  # type: ignore[return-value]


class Store(MemoryStore):
    """A store whose owner dies before or after a commit."""

    def __init__(self, world: World) -> None:
        super().__init__(world.tables, permit_books.writer(world.books))
        self._world = world

    def commit(
        self,
        parts: Sequence[PartCommit],
        states: Sequence[StateRow],
        rows: Sequence[Row],
        wakes: Sequence[str],
    ) -> None:
        if self._world.crash_in == 0:
            raise Crash
        super().commit(parts, states, rows, wakes)
        if self._world.crash_in == 1:
            raise Crash


class Log(MemoryLog):
    """A log read in any portions; its producer may die amid a batch."""

    def __init__(self, world: World) -> None:
        super().__init__(world.broker)
        self._world = world

    def poll(self, timeout_s: float, records_max: int, bytes_max: int) -> list[Input]:
        random = self._world.random
        spots = [spot for spot in self._positions if self._left(spot)]
        random.shuffle(spots)
        found: list[Input] = []
        for topic, index in spots:
            if found and random.random() < 0.4:
                continue
            start = self._positions[topic, index]
            taken = self._left((topic, index))[: random.choice([1, 2, 9])]
            self._positions[topic, index] = start + len(taken)
            found += taken
        return found

    def _left(self, spot: tuple[str, int]) -> list[Input]:
        topic, index = spot
        return self.broker.topics[topic].partitions[index][self._positions[spot] :]

    def produce(self, records: Sequence[Outgoing]) -> None:
        crash_in = self._world.crash_in
        if crash_in is not None and crash_in >= 2 and records:
            super().produce(records[: crash_in - 2])
            raise Crash
        super().produce(records)


def said(order: StepRequested, verb: str, take: str, random: Random) -> StepReport | StepOutcome:
    """What a worker says of an order."""
    common: Mapping[str, Any] = {
        "execution_id": order.execution_id,
        "tenant": order.tenant,
        "attempt_id": order.attempt_id,
        "take_id": take,
        "worker": "w",
    }
    if verb in ("claim", "heartbeat", "part"):
        return StepReport(**common, kind=verb, lease_s=20, reported_at=NOW, rows=random.randrange(9))
    ended: Mapping[str, Any] = FAILED if verb != "done" else {"output": {"n": random.randrange(3)}}
    return StepOutcome(**common, outcome=verb, finished_at=NOW, **ended)


def plan(random: Random) -> tuple[PlannedStep, ...]:
    """A pipeline of one to four steps that uses what there is."""
    names = [f"s{number}" for number in range(random.randint(1, 4))]
    return tuple(_step(random, name, names, index) for index, name in enumerate(names))


def _step(random: Random, name: str, names: Sequence[str], index: int) -> PlannedStep:
    following = names[index + 1 : index + 2]
    if random.random() < 0.25:
        more: Mapping[str, Any] = {
            "quorum": random.choice([1, 1, 2]),
            "expires_after_s": 500,
            "on_expiry": random.choice(["fail", "cancel", "skip"]),
            "max_step_runs": 6,
        }
        return approval(name, *_actions(random, names), next=tuple(following), **more)
    return step(
        name,
        *_actions(random, names),
        max_attempts=random.choice([1, 2, 3]),
        next=tuple(following),
        wait_before_s=random.choice([0, 0, 0, 5]),
        wait_after_s=random.choice([0, 0, 0, 5]),
        retry={"stop_on": ["http_503"]} if random.random() < 0.1 else {},
        pause_before=random.random() < 0.08,
        fail_on="$.result.n = 2" if random.random() < 0.2 else None,
        max_step_runs=6,
    )


def _actions(random: Random, names: Sequence[str]) -> Iterable[Action]:
    for _ in range(random.choice([0, 0, 1, 2])):
        on: Any = random.choice(["enter", "exit", "success", "error"])
        when = random.choice([None, None, *CONDITIONS])
        if on != "enter" and random.random() < 0.4:
            yield goto(random.choice(names), on, when)
        else:
            yield call("Logger:x", on, when=when, wait=random.random() < 0.5, max_attempts=2)

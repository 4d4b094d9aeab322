"""Limits across indexes and managers, with permits in memory and in PostgreSQL."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Protocol

import pytest

from services.contracts import envelope, events, ids
from services.contracts.commands import Command, JobRequested, StepRequested
from services.contracts.partition import partition_of
from services.executor import permits
from services.executor.manager import INPUTS, OUTPUTS, Manager
from services.runtime import migrations
from services.runtime.entropy import LocalClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.loop import Limits, Processor
from services.runtime.processor.postgres import PostgresStore
from services.runtime.processor.store import Store
from services.runtime.schemas import codec
from tests.claims import in_memory
from tests.conformance import permit_books
from tests.conformance.faulty import FaultyStore, Killed
from tests.service.executor.house import DEAD, command, job, outcome
from tests.stack import transaction
from tests.waiting import until

NEVER = threading.Event()
ONE = [{"key": "key:press", "max": 1, "holds_paused": False}]
TWO = [{"key": "key:press", "max": 2, "holds_paused": False}]


class Body(Protocol):
    """Where states and permits are kept."""

    def store(self) -> Store: ...
    def holders(self) -> set[str]: ...
    def waiters(self) -> set[str]: ...


class Memory:
    def __init__(self) -> None:
        self._tables, self._books = Tables(LocalClock()), permit_books.Books()

    def store(self) -> MemoryStore:
        return MemoryStore(self._tables, permit_books.writer(self._books))

    def holders(self) -> set[str]:
        return {id for book in self._books.values() for id in book.holders}

    def waiters(self) -> set[str]:
        return {id for book in self._books.values() for id in book.waiters}


class Postgres:
    def __init__(self, url: str) -> None:
        migrations.migrate(url, "executor")
        self._url = url

    def store(self) -> PostgresStore:
        return PostgresStore(self._url, "executor", permits.write)

    def holders(self) -> set[str]:
        return self._ids("permit")

    def waiters(self) -> set[str]:
        return self._ids("permit_waiter")

    def _ids(self, table: str) -> set[str]:
        with transaction(self._url) as cursor:
            cursor.execute(f"SELECT execution_id FROM executor.{table}")
            return {id for (id,) in cursor.fetchall()}


class Managers:
    """Two managers that share the indexes, turned by the test, and what they ask of workers."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.broker = Broker()
        self.broker.create(*INPUTS, *OUTPUTS, *DEAD)
        self.members: list[tuple[Processor[Any], MemoryLog, FaultyStore]] = []
        self.add()
        self.add()
        self.turned(lambda: all(self.indexes(n) for n in range(2)), "both to own indexes")

    def add(self) -> None:
        store, log = FaultyStore(self.body.store()), MemoryLog(self.broker)
        loop = Processor(Manager(codec()), store, log, in_memory(), OUTPUTS, Limits(idle_s=0.01))
        log.join(INPUTS)
        self.members.append((loop, log, store))

    def indexes(self, number: int) -> set[int]:
        return set(self.members[number][0]._owner.parts)

    def say(self, *records: Command) -> None:
        for record in records:
            self.broker.append(envelope.command(record, codec().encode(record)))

    def turn(self) -> None:
        for loop, _, _ in self.members:
            loop.turn(NEVER)

    def turned(self, done: Any, what: str) -> Any:
        def look() -> Any:
            self.turn()
            return done()

        return until(look, 30, what)

    def asked(self) -> set[str]:
        """Executions whose step was asked for."""
        found: list[StepRequested] = [
            codec().decode("step.requested", record.value)  # type: ignore[misc]
            for record in self.broker.records("step.requested")
        ]
        return {order.execution_id for order in found}

    def names(self, wanted: JobRequested) -> list[str]:
        found: list[Any] = [
            codec().decode("execution.events", record.value)
            for record in self.broker.records("execution.events")
        ]
        return [events.type_of(event) for event in found if event.execution_id == wanted.execution_id]

    def accepted(self, *jobs: JobRequested) -> None:
        self.say(*jobs)
        self.turned(lambda: all(self.names(one) for one in jobs), "all to be accepted")

    def end(self, wanted: JobRequested) -> None:
        """Its worker is done."""
        self.say(outcome(ids.attempt_id(wanted.execution_id, "noop", 1), wanted))
        self.turned(lambda: "execution.completed" in self.names(wanted), "its end")


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def managers(request: pytest.FixtureRequest) -> Managers:
    if request.param == "memory":
        return Managers(Memory())
    return Managers(Postgres(request.getfixturevalue("stack").fresh_database()))


def limited(managers: Managers, count: int, limits: Any = ONE, **changes: Any) -> list[JobRequested]:
    """Requests whose homes are by turns with the one manager and the other."""
    homes = [managers.indexes(number) for number in range(2)]
    found: list[JobRequested] = []
    for number in range(1000):
        one = job(f"limited{number}", limits=limits, **changes)
        if partition_of(one.execution_id.encode(), 12) in homes[len(found) % 2]:
            found.append(one)
        if len(found) == count:
            return found
    raise AssertionError("ids lie on few indexes")


def test_never_more_run_than_the_limit_and_the_oldest_goes_first(managers: Managers) -> None:
    jobs = limited(managers, 8, TWO)
    for one in jobs:
        managers.accepted(one)  # one after the other, so that it is known who is older
    assert managers.asked() == {one.execution_id for one in jobs[:2]}
    for done, one in enumerate(jobs, 1):
        assert len(managers.body.holders()) <= 2
        managers.end(one)
        expected = {each.execution_id for each in jobs[: done + 2]}
        managers.turned(lambda expected=expected: managers.asked() == expected, "the next to be asked for")
    assert not managers.body.holders() and not managers.body.waiters()


def test_many_at_once_share_the_permits(managers: Managers) -> None:
    jobs = limited(managers, 20, TWO)
    managers.accepted(*jobs)
    left = {one.execution_id: one for one in jobs}
    while left:
        managers.turned(lambda: managers.asked() & left.keys(), "somebody's turn")
        running = managers.asked() & left.keys()
        assert len(running) <= 2 and running <= managers.body.holders()
        for id in running:
            managers.end(left.pop(id))
    assert not managers.body.holders() and not managers.body.waiters()


def test_a_cancelled_waiter_leaves_the_line_and_a_cancelled_holder_makes_room(managers: Managers) -> None:
    first, second, third = limited(managers, 3)
    for one in (first, second, third):
        managers.accepted(one)
    managers.say(command("cancel", second))
    managers.turned(lambda: "execution.cancelled" in managers.names(second), "the waiter's end")
    assert managers.body.waiters() == {third.execution_id}
    managers.say(command("cancel", first))
    managers.turned(lambda: third.execution_id in managers.asked(), "the third one's turn")
    assert managers.body.holders() == {third.execution_id}
    assert second.execution_id not in managers.asked()


@pytest.mark.parametrize("holds", [True, False], ids=["holds", "gives back"])
def test_a_permit_in_a_pause_is_a_setting(managers: Managers, holds: bool) -> None:
    limits = [{"key": "key:press", "max": 1, "holds_paused": holds}]
    first, second = limited(managers, 2, limits)
    managers.accepted(first)
    managers.say(command("pause", first))
    managers.turned(lambda: "execution.waiting" in managers.names(first), "the pause")
    managers.accepted(second)
    assert managers.asked() == {first.execution_id}, "what runs goes on in a pause, and holds its permit"
    attempt = ids.attempt_id(first.execution_id, "noop", 1)
    managers.say(outcome(attempt, first, outcome="retry", reason="r", message="m"))
    managers.turned(lambda: "step.retry_scheduled" in managers.names(first), "the end of what ran")
    if holds:
        assert managers.body.holders() == {first.execution_id}
        return
    managers.turned(lambda: second.execution_id in managers.asked(), "the other's turn")
    managers.say(command("resume", first))
    managers.turned(lambda: first.execution_id in managers.body.waiters(), "the first one to wait again")
    managers.end(second)
    managers.turned(lambda: managers.body.holders() == {first.execution_id}, "its permit")


@pytest.mark.parametrize("moment", ["die_before_commit", "die_after_commit"])
def test_a_killed_manager_leaves_no_permit_behind(managers: Managers, moment: str) -> None:
    first, second = limited(managers, 2)
    managers.accepted(first)
    managers.accepted(second)
    loop, log, store = managers.members.pop(0)
    setattr(store, moment, True)
    managers.say(outcome(ids.attempt_id(first.execution_id, "noop", 1), first))
    with pytest.raises(Killed):
        until(lambda: loop.turn(NEVER), 10, "its death")
    log.close()
    managers.turned(lambda: second.execution_id in managers.asked(), "the other's turn, by the heir")
    managers.end(second)
    assert "execution.completed" in managers.names(first)
    assert not managers.body.holders() and not managers.body.waiters()


def test_two_limits_are_taken_in_one_order(managers: Managers) -> None:
    both = [*ONE, {"key": "tenant", "max": 2, "holds_paused": False}]
    first, second, third = limited(managers, 3, both)
    for one in (first, second, third):
        managers.accepted(one)
    assert managers.asked() == {first.execution_id}
    for one in (first, second, third):
        managers.turned(lambda one=one: one.execution_id in managers.asked(), "its turn")
        managers.end(one)
    assert not managers.body.holders() and not managers.body.waiters()


def of(holds_one: bool | None, holds_two: bool | None) -> list[dict[str, Any]]:
    """Limits by two keys, each with its flag; None: not limited by it."""
    flags = {"key:one": holds_one, "key:two": holds_two}
    return [
        {"key": key, "max": 1, "holds_paused": holds} for key, holds in flags.items() if holds is not None
    ]


def test_two_whose_flags_differ_do_not_wait_for_each_other(managers: Managers) -> None:
    """Were the flags to decide the order, each would have the permit that the other one waits for."""
    made = [of(False, None), of(None, False), of(False, True), of(True, False)]
    jobs = [limited(managers, 4, limits)[place] for place, limits in enumerate(made)]
    for one in jobs:
        managers.accepted(one)
    for one in jobs:
        managers.turned(lambda one=one: one.execution_id in managers.asked(), "its turn")
        managers.end(one)
    assert not managers.body.holders() and not managers.body.waiters()


def test_nor_do_they_after_a_pause(managers: Managers) -> None:
    """What is kept is the second key. Without the first, to be taken again, others could have that one."""
    first, second = limited(managers, 2, of(False, True))
    managers.accepted(first)
    managers.say(command("pause", first))
    attempt = ids.attempt_id(first.execution_id, "noop", 1)
    managers.say(outcome(attempt, first, outcome="retry", reason="r", message="m"))
    managers.turned(lambda: "step.retry_scheduled" in managers.names(first), "the end of what ran")
    managers.accepted(second)
    managers.say(command("resume", first))
    managers.turned(lambda: "execution.resumed" in managers.names(first), "its going on")
    assert managers.body.holders() == {first.execution_id}


def test_waiting_for_a_permit_is_bounded_by_the_queue_timeout(managers: Managers) -> None:
    first, second = limited(managers, 2)
    managers.accepted(first)
    managers.accepted(second)
    row = managers.body.store().load([second.execution_id])[second.execution_id]
    assert row.waits_for == "permit:acme/key:press"
    assert row.due_at is not None and row.due_at > LocalClock().now() + timedelta(hours=23)


@pytest.fixture(autouse=True)
def _closed(managers: Managers) -> Iterator[None]:
    yield
    for _, log, _ in managers.members:
        log.close()

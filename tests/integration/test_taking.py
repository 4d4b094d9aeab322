"""Taking from a real queue, in this process: what becomes of records that come twice or are revoked."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from services.contracts.commands import StepRequested
from services.contracts.envelope import Outgoing
from services.executor.calls.outbound import Caller, Outbound
from services.executor.steps.outcome import Done, Outcome
from services.executor.steps.source import Sources
from services.executor.steps.step import Context
from services.executor.work.calls import Calls
from services.executor.work.control import Control
from services.executor.work.hands import Hands
from services.executor.work.lanes import Lanes
from services.executor.work.logs import Logs
from services.executor.work.reporter import Reporter
from services.executor.work.slots import Bounds, Slots
from services.executor.work.take import Take
from services.executor.work.taking import SHORT, Taking
from services.executor.work.works import Works
from services.runtime.blobs import in_memory
from services.runtime.container import Files
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests import claims, exporting
from tests.stack import OwnStack
from tests.waiting import until
from tests.working import REJOIN_S, Manager, committed

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@dataclass
class Gated:
    """Runs until the gate is open; remembers its takes."""

    gate: threading.Event = field(default_factory=threading.Event)
    takes: list[str] = field(default_factory=list)

    def run(self, request: StepRequested, context: Context) -> Outcome:
        self.takes.append(context.take_id)
        assert self.gate.wait(60)
        return Done()


@dataclass
class Asking:
    """Waits for an answer, all for the same one; remembers its takes."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    takes: list[str] = field(default_factory=list)

    def destination(self, request: StepRequested) -> str:
        return "somewhere"

    async def run(self, request: StepRequested, context: Context) -> Outcome:
        self.takes.append(context.take_id)
        await self.answers.wait()
        return Done()


class Hooked(Reporter):
    """Does something else just before it claims."""

    before_claim: Callable[[Take], None]

    def claim(self, take: Take, began_at: float) -> Outgoing:
        self.before_claim(take)
        return super().claim(take, began_at)


@dataclass
class Worker:
    """The parts of a worker that take short steps."""

    stack: OwnStack
    folder: Path
    step: Gated = field(default_factory=Gated)
    call: Asking = field(default_factory=Asking)
    bounds: Bounds = field(default_factory=Bounds)
    caller: Caller = field(default_factory=lambda: exporting.outbound().caller)
    drain_s: float = 10
    before_claim: Callable[[Take, Control], None] = lambda take, control: None

    def answer(self) -> None:
        """Answer every call."""

        async def answer() -> None:
            self.call.answers.set()

        self.caller.begin(answer()).result(5)

    @contextmanager
    def taking(self) -> Iterator[Hands]:
        """Take until the end of the `with` block."""
        stop = threading.Event()
        with ExitStack() as ended:
            publisher = Publisher(self.stack.kafka, "tests-taking")
            ended.callback(publisher.close, 10)
            store = in_memory()
            reporter = Hooked(publisher, codec(), LocalClock(), claims.in_memory(store))
            files, logs = Files(store, exporting.KEYS), Logs(self.folder, store, (), LocalClock())
            works = Works("taking", files, Sources({}, {}), reporter, logs, Outbound(self.caller, {}))
            calls = Calls("taking", {"CALL": self.call}, works, self.caller, Slots(self.bounds))
            hands = Hands(works, Lanes("taking", 2, {"GATED": self.step}, works), calls)
            control = Control(self.stack.kafka, "tests-taking", codec(), works.revoke)
            reporter.before_claim = lambda take: self.before_claim(take, control)
            taking = Taking(SHORT, self.stack.kafka, "tests", codec(), reporter, hands, control, stop)
            thread = threading.Thread(target=taking.run)
            control.start()
            ended.callback(control.close)
            ended.callback(self.caller.close)
            ended.callback(hands.drain, self.drain_s, 1)
            thread.start()
            ended.callback(thread.join)
            ended.callback(stop.set)
            ended.callback(self.step.gate.set)
            until(lambda: taking.ready()[0], REJOIN_S, "a worker that takes")
            yield hands


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The queues have fixed names."""
    return own


@pytest.fixture
def worker(stack: OwnStack, tmp_path: Path) -> Worker:
    return Worker(stack, tmp_path)


def settled(stack: OwnStack, count: int) -> None:
    until(lambda: committed(stack) == count, 10, f"{count} settled records")


def running(worker: Worker) -> Callable[[], bool]:
    return lambda: len(worker.step.takes) > 0


def test_a_second_record_of_a_running_attempt_holds_nothing_up(manager: Manager, worker: Worker) -> None:
    """A manager that restarts publishes the last row of its outbox again."""
    before = committed(manager.stack)
    request = manager.request("GATED")
    with worker.taking():
        manager.dispatch(request)
        until(running(worker), 10, "a running step")
        # Of the same execution, so on the same partition: once it runs, the double before it was read.
        other = replace(manager.request("GATED"), execution_id=request.execution_id)
        manager.dispatch(request, other)
        until(lambda: len(worker.step.takes) == 2, 10, "the step behind it")
        worker.step.gate.set()
        assert manager.outcome(other).outcome == "done"
        settled(worker.stack, before + 3)
    assert [outcome.outcome for outcome in manager.outcomes(request)] == ["done"]


def test_an_order_older_than_the_revocations_kept_is_asked_about_and_not_begun(
    manager: Manager, worker: Worker
) -> None:
    before = committed(manager.stack)
    fresh = manager.request("GATED")
    old = replace(fresh, requested_at=LocalClock().now() - timedelta(hours=26))
    with worker.taking():
        manager.dispatch(old)
        said = manager.outcome(old)
        settled(worker.stack, before + 1)
        assert (said.outcome, said.reason) == ("retry", "order_expired")
        assert worker.step.takes == []


def test_an_order_that_comes_again_after_its_end_is_answered_and_not_begun_again(
    manager: Manager, worker: Worker
) -> None:
    """A manager that starts anew publishes the orders that its predecessor committed last."""
    before = committed(manager.stack)
    request = manager.request("GATED")
    worker.step.gate.set()
    with worker.taking():
        manager.dispatch(request)
        first = manager.outcome(request)
        settled(worker.stack, before + 1)
        manager.dispatch(request)
        settled(worker.stack, before + 2)
        until(lambda: len(manager.outcomes(request)) == 2, 10, "the same outcome once more")
        assert len(worker.step.takes) == 1
    assert manager.outcomes(request) == [first, first]


def test_two_records_of_an_attempt_that_are_read_at_once_are_one_take(
    manager: Manager, worker: Worker
) -> None:
    before = committed(manager.stack)
    request = manager.request("GATED")
    manager.dispatch(request, request)
    with worker.taking():
        until(running(worker), 10, "a running step")
        settled(worker.stack, before + 2)
        worker.step.gate.set()
        assert manager.outcome(request).outcome == "done"
    assert len(manager.reports(request, "claim")) == len(worker.step.takes) == 1


def test_what_is_revoked_while_it_is_claimed_never_begins(manager: Manager, worker: Worker) -> None:
    before = committed(manager.stack)
    request = replace(manager.request("GATED"), attempt=2)

    def revoke(take: Take, control: Control) -> None:
        if take.request == request:
            manager.revoke(request)
            until(lambda: control.revoked(take), 10, "the revocation")

    worker.before_claim = revoke
    worker.step.gate.set()
    with worker.taking():
        manager.dispatch(request)
        settled(worker.stack, before + 1)
        manager.dispatch(other := replace(manager.request("GATED"), attempt=2))
        assert manager.outcome(other).outcome == "done"
    assert len(worker.step.takes) == 1
    assert manager.outcomes(request) == []


def calls(manager: Manager, count: int) -> list[StepRequested]:
    """Of one execution, so on one partition."""
    first = manager.request("CALL")
    others = (replace(manager.request("CALL"), execution_id=first.execution_id) for _ in range(count - 1))
    return [first, *others]


def test_calls_that_wait_for_a_slot_hold_up_no_record_and_no_lane(manager: Manager, worker: Worker) -> None:
    before = committed(manager.stack)
    worker.bounds = Bounds(destination=1)
    asked = calls(manager, 3)
    behind = [replace(manager.request("GATED"), execution_id=asked[0].execution_id) for _ in range(3)]
    worker.step.gate.set()
    with worker.taking():
        manager.dispatch(*asked, *behind)
        assert [manager.outcome(request).outcome for request in behind] == ["done"] * 3
        settled(worker.stack, before + 6)
        assert [len(manager.reports(request, "claim")) for request in asked] == [1, 1, 1]
        assert len(worker.call.takes) == 1
        worker.answer()
        assert [manager.outcome(request).outcome for request in asked] == ["done"] * 3
    assert len(worker.call.takes) == 3


def test_a_call_is_revoked_whether_it_runs_or_waits(manager: Manager, worker: Worker) -> None:
    worker.bounds = Bounds(tenant=1)
    running, waiting, last = calls(manager, 3)
    with worker.taking() as hands:
        manager.dispatch(running)
        until(lambda: len(worker.call.takes) == 1, 10, "the call that has the slot first")
        manager.dispatch(waiting, last)
        for held in (waiting, last):
            until(lambda: hands.works.known(held.attempt_id), 10, "calls that are held")  # noqa: B023
        for revoked in (waiting, running):
            manager.revoke(revoked, attempt_id=revoked.attempt_id)
            until(lambda: hands.works.known(revoked.attempt_id) is None, 10, "the end of a revoked call")  # noqa: B023
        until(lambda: len(worker.call.takes) == 2, 10, "the call that has the slot now")
        worker.answer()
        assert manager.outcome(last).outcome == "done"
    assert manager.outcomes(running) == manager.outcomes(waiting) == []


def test_calls_are_given_back_at_the_end_of_the_worker(manager: Manager, worker: Worker) -> None:
    worker.bounds = Bounds(worker=1)
    worker.drain_s = 0
    asked = calls(manager, 2)
    with worker.taking():
        manager.dispatch(*asked)
        until(lambda: all(manager.reports(request, "claim") for request in asked), 10, "claims")
    ends = [manager.outcome(request) for request in asked]
    assert [(end.outcome, end.reason) for end in ends] == [("retry", "worker_stopped")] * 2
    assert len(worker.call.takes) == 1

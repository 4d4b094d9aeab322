"""Taking from a real queue, in this process: what becomes of records that come twice or are revoked."""

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
from services.executor.steps.outcome import Done, Outcome
from services.executor.steps.source import Sources
from services.executor.steps.step import Context
from services.executor.work.control import Control
from services.executor.work.lanes import Lanes
from services.executor.work.logs import Logs
from services.executor.work.reporter import Reporter
from services.executor.work.take import Take
from services.executor.work.taking import SHORT, Taking
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
    before_claim: Callable[[Take, Control], None] = lambda take, control: None

    @contextmanager
    def taking(self) -> Iterator[Lanes]:
        """Take until the end of the `with` block."""
        stop = threading.Event()
        with ExitStack() as ended:
            publisher = Publisher(self.stack.kafka, "tests-taking")
            ended.callback(publisher.close, 10)
            store = in_memory()
            reporter = Hooked(publisher, codec(), LocalClock(), claims.in_memory(store))
            files, logs = Files(store, exporting.KEYS), Logs(self.folder, store, (), LocalClock())
            lanes = Lanes(
                "taking",
                2,
                {"GATED": self.step},
                files,
                Sources({}, {}),
                reporter,
                logs,
                exporting.outbound(),
            )
            control = Control(self.stack.kafka, "tests-taking", codec(), lanes.revoke)
            reporter.before_claim = lambda take: self.before_claim(take, control)
            taking = Taking(SHORT, self.stack.kafka, "tests", codec(), reporter, lanes, control, stop)
            thread = threading.Thread(target=taking.run)
            control.start()
            ended.callback(control.close)
            ended.callback(lanes.drain, 10, 1)
            thread.start()
            ended.callback(thread.join)
            ended.callback(stop.set)
            ended.callback(self.step.gate.set)
            until(lambda: taking.ready()[0], REJOIN_S, "a worker that takes")
            yield lanes


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

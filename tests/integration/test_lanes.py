"""Lanes on a real broker: what is said about steps that raise, stop when told, or hang."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from services.contracts.commands import StepControl, StepRequested
from services.executor.steps.outcome import Done, Outcome, Retry
from services.executor.steps.source import Sources
from services.executor.steps.step import Context, Step
from services.executor.work.calls import Calls
from services.executor.work.hands import Hands
from services.executor.work.lanes import Lanes
from services.executor.work.logs import Logs
from services.executor.work.partition import Place
from services.executor.work.reporter import Reporter
from services.executor.work.slots import Bounds, Slots
from services.executor.work.take import Take
from services.executor.work.works import Work, Works
from services.runtime.blobs import in_memory
from services.runtime.container import Files
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests import claims, exporting
from tests.exporting import AT
from tests.stack import Stack
from tests.waiting import until
from tests.working import Manager

pytestmark = pytest.mark.kafka


class Obedient:
    """Runs until it is told to stop."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        assert context.cancelled.wait(60)
        return Retry("worker_stopped", "told to stop")


class Hanging:
    """Listens to nobody."""

    begun: ClassVar[set[str]] = set()

    def run(self, request: StepRequested, context: Context) -> Outcome:
        self.begun.add(request.attempt_id)
        threading.Event().wait(600)
        return Done()


class Quick:
    """Is done at once."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        return Done()


class Raising:
    """Has a mistake, and a secret in its message."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        raise ValueError("postgresql://someone:canary-secret@host/db")


class Unsendable:
    """Has a result that no record can hold."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        return Done("x" * 2_000_000)


@pytest.fixture
def hands(stack: Stack, tmp_path: Path) -> Iterator[Hands]:
    publisher = Publisher(stack.kafka, "tests-lanes")
    steps: dict[str, Step] = {
        "OBEDIENT": Obedient(),
        "HANGING": Hanging(),
        "QUICK": Quick(),
        "RAISING": Raising(),
        "UNSENDABLE": Unsendable(),
    }
    store = in_memory()
    files, logs = Files(store, exporting.KEYS), Logs(tmp_path, store, (), LocalClock())
    reporter = Reporter(publisher, codec(), LocalClock(), claims.in_memory())
    outbound = exporting.outbound()
    works = Works("tests", files, Sources({}, {}), reporter, logs, outbound)
    calls = Calls("tests", {}, works, outbound.caller, Slots(Bounds()))
    hands = Hands(works, Lanes("tests", 2, steps, works), calls)
    yield hands
    hands.drain(0, 0.1)
    assert publisher.close(10) == 0


def started(
    hands: Hands, manager: Manager, kind: str, *, claimed: bool = True, timeout_s: int = 600
) -> StepRequested:
    request = replace(manager.request(kind), timeout_s=timeout_s)
    hands.lanes.start([taken(request)], claimed=claimed)
    return request


def taken(request: StepRequested) -> Take:
    return Take(request, request.attempt_id[:20], "tests", Place(0, 7), time.monotonic())


def settled(hands: Hands) -> list[Place]:
    """What the lanes settle from now on."""
    places: list[Place] = []
    hands.works.settle = places.append
    return places


def test_no_step_is_out_of_time_before_it_began(hands: Hands, manager: Manager) -> None:
    """What runs has its start, from which the watching thread measures; else it ran since the machine did."""

    class Seen(set[Work]):
        def add(self, work: Work) -> None:
            starts.append(work.started_at)
            super().add(work)

    starts: list[float] = []
    hands.works._begun = Seen()
    ended = settled(hands)
    started(hands, manager, "QUICK", claimed=False)
    until(lambda: ended, 10, "the step's end")
    assert [start > 0 for start in starts] == [True]


def test_a_lane_is_idle_again_when_its_step_has_ended(hands: Hands, manager: Manager) -> None:
    started(hands, manager, "HANGING")
    assert hands.lanes.idle() == 1
    second = started(hands, manager, "RAISING")
    until(lambda: hands.works.known(second.attempt_id) is None, 10, "the acknowledged outcome")
    assert hands.lanes.wait_idle(10)
    assert hands.lanes.idle() == 1


def test_more_takes_than_lanes_wait_and_may_be_withdrawn(hands: Hands, manager: Manager) -> None:
    hanging = [started(hands, manager, "HANGING") for _ in range(2)]
    waiting = started(hands, manager, "RAISING", claimed=False)
    until(lambda: hands.lanes.queued() == 1, 10, "one that waits")
    hands.withdraw([1])
    assert hands.works.known(waiting.attempt_id) is not None
    hands.withdraw([0])
    assert hands.works.known(waiting.attempt_id) is None
    assert all(hands.works.known(request.attempt_id) for request in hanging)


def test_a_step_that_ends_unclaimed_is_settled_by_its_outcome(hands: Hands, manager: Manager) -> None:
    places = settled(hands)
    request = started(hands, manager, "RAISING", claimed=False)
    assert manager.outcome(request).outcome == "retry"
    until(lambda: places, 10, "the settled record")
    assert places == [Place(0, 7)]
    assert manager.reports(request, "claim") == []


def test_a_step_that_runs_for_2_s_is_claimed_and_settled(hands: Hands, manager: Manager) -> None:
    places = settled(hands)
    request = started(hands, manager, "OBEDIENT", claimed=False)
    (claim,) = until(lambda: manager.reports(request, "claim"), 10, "a claim")
    assert claim.take_id == taken(request).take_id
    until(lambda: places, 10, "the settled record")
    until(lambda: manager.reports(request, "heartbeat"), 10, "a heartbeat")
    assert len(manager.reports(request, "claim")) == 1


def test_lanes_are_full_once_every_one_is_busy_with_a_claimed_step(hands: Hands, manager: Manager) -> None:
    started(hands, manager, "HANGING")
    assert hands.lanes.full_for_s() == 0
    started(hands, manager, "HANGING")
    until(lambda: hands.lanes.full_for_s() > 0.1, 10, "full lanes")


def revocation(request: StepRequested, **named: str) -> StepControl:
    return StepControl(
        execution_id=request.execution_id,
        tenant="acme",
        kind="revoke",
        reason="cancelled",
        issued_at=AT,
        **named,
    )


def test_a_revoked_step_stops_and_says_nothing(hands: Hands, manager: Manager) -> None:
    request, other = started(hands, manager, "OBEDIENT"), started(hands, manager, "OBEDIENT")
    places = settled(hands)
    hands.works.revoke(revocation(request, take_id="of another"))
    hands.works.revoke(revocation(request, attempt_id="of another"))
    assert places == []
    hands.works.revoke(revocation(request, attempt_id=request.attempt_id, take_id=taken(request).take_id))
    until(lambda: hands.works.known(request.attempt_id) is None, 10, "the end of the revoked step")
    assert places == [Place(0, 7)]
    assert hands.works.known(other.attempt_id) is not None
    hands.works.revoke(revocation(other))
    until(lambda: hands.works.known(other.attempt_id) is None, 10, "the end of the other one")
    assert manager.outcomes(request) == manager.outcomes(other) == []


def test_two_takes_of_one_attempt_are_each_revoked_and_waited_for(hands: Hands, manager: Manager) -> None:
    request = manager.request("OBEDIENT")
    first, second = taken(request), replace(taken(request), take_id="second", place=Place(0, 8))
    places = settled(hands)
    hands.lanes.start([first, second], claimed=True)
    hands.works.revoke(revocation(request, take_id="second"))
    until(lambda: places == [Place(0, 8)], 10, "the end of the second take")
    assert hands.works.known(request.attempt_id) is not None
    hands.works.revoke(revocation(request))
    until(lambda: hands.works.known(request.attempt_id) is None, 10, "the end of the first take")
    assert places == [Place(0, 8), Place(0, 7)]


def test_a_step_may_not_run_longer_than_its_timeout(hands: Hands, manager: Manager) -> None:
    outcome = manager.outcome(started(hands, manager, "OBEDIENT", timeout_s=1))
    assert (outcome.outcome, outcome.reason) == ("fail", "timeout")
    assert outcome.message == "the step ran longer than its timeout of 1 s"


def test_a_step_that_is_told_to_stop_is_given_back(hands: Hands, manager: Manager) -> None:
    request = started(hands, manager, "OBEDIENT")
    assert hands.drain(0, 10)
    outcome = manager.outcome(request)
    assert (outcome.outcome, outcome.reason) == ("retry", "worker_stopped")


def test_a_step_that_hangs_is_left_to_its_lease(hands: Hands, manager: Manager) -> None:
    request = started(hands, manager, "HANGING")
    until(lambda: request.attempt_id in Hanging.begun, 10, "a step that hangs")
    assert not hands.drain(0, 0.1)
    assert manager.outcomes(request) == []


def test_an_exception_is_told_by_its_type_alone(hands: Hands, manager: Manager) -> None:
    outcome = manager.outcome(started(hands, manager, "RAISING"))
    assert (outcome.outcome, outcome.reason) == ("retry", "internal_error")
    assert outcome.message == "ValueError in the worker; its log has the details"


def test_a_result_too_large_for_a_record_fails(hands: Hands, manager: Manager) -> None:
    outcome = manager.outcome(started(hands, manager, "UNSENDABLE"))
    assert (outcome.outcome, outcome.reason) == ("fail", "outcome_too_large")

"""Lanes on a real broker: what is said about steps that raise, stop when told, or hang."""

import threading
from collections.abc import Iterator

import pytest

from services.contracts.commands import StepRequested
from services.executor.steps.outcome import Done, Outcome, Retry
from services.executor.steps.step import Context, Step
from services.executor.work.lanes import Lanes
from services.executor.work.reporter import Reporter
from services.executor.work.take import Take
from services.runtime.blobs import in_memory
from services.runtime.container import Files
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests import exporting
from tests.stack import Stack
from tests.working import Manager

pytestmark = pytest.mark.kafka


class Obedient:
    """Runs until it is told to stop."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        context.cancelled.wait()
        return Retry("worker_stopped", "told to stop")


class Hanging:
    """Listens to nobody."""

    def __init__(self) -> None:
        self.never = threading.Event()

    def run(self, request: StepRequested, context: Context) -> Outcome:
        self.never.wait()
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
def manager(stack: Stack) -> Iterator[Manager]:
    manager = Manager(stack)
    yield manager
    manager.close()


@pytest.fixture
def lanes(stack: Stack) -> Iterator[Lanes]:
    publisher = Publisher(stack.kafka, "tests-lanes")
    steps: dict[str, Step] = {
        "OBEDIENT": Obedient(),
        "HANGING": Hanging(),
        "RAISING": Raising(),
        "UNSENDABLE": Unsendable(),
    }
    files = Files(in_memory(), exporting.KEYS)
    lanes = Lanes(2, steps, files, {}, Reporter(publisher, codec(), LocalClock()))
    yield lanes
    lanes.drain(0, 0)
    assert publisher.close(10) == 0


def started(lanes: Lanes, manager: Manager, kind: str) -> StepRequested:
    request = manager.request(kind)
    lanes.start(Take(request, request.attempt_id[:20], "tests"))
    return request


def test_a_lane_is_free_again_when_its_step_has_ended(lanes: Lanes, manager: Manager) -> None:
    started(lanes, manager, "HANGING")
    assert lanes.free() == 1
    second = started(lanes, manager, "RAISING")
    assert lanes.runs(second.attempt_id) or lanes.free() == 1
    assert lanes.wait_free(10)
    assert not lanes.runs(second.attempt_id)


def test_a_step_that_is_told_to_stop_is_given_back(lanes: Lanes, manager: Manager) -> None:
    request = started(lanes, manager, "OBEDIENT")
    assert lanes.drain(0, 10)
    outcome = manager.outcome(request)
    assert (outcome.outcome, outcome.reason) == ("retry", "worker_stopped")


def test_a_step_that_hangs_is_left_to_its_lease(lanes: Lanes, manager: Manager) -> None:
    request = started(lanes, manager, "HANGING")
    assert not lanes.drain(0, 0.1)
    assert manager.outcomes(request) == []


def test_an_exception_is_told_by_its_type_alone(lanes: Lanes, manager: Manager) -> None:
    outcome = manager.outcome(started(lanes, manager, "RAISING"))
    assert (outcome.outcome, outcome.reason) == ("retry", "internal_error")
    assert outcome.message == "ValueError in the worker; its log has the details"


def test_a_result_too_large_for_a_record_fails(lanes: Lanes, manager: Manager) -> None:
    outcome = manager.outcome(started(lanes, manager, "UNSENDABLE"))
    assert (outcome.outcome, outcome.reason) == ("fail", "outcome_too_large")

"""What becomes of requests, commands and timers that cannot be processed: nobody waits for ever."""

from typing import Any

import pytest
from msgspec import structs

from services.contracts import events
from services.contracts.commands import JobRequested
from services.executor.core import request
from services.executor.core.execution import Execution
from services.runtime.processor.batch import TIMER_AGAIN
from tests.service.executor.house import Desk, House, command, job, order, outcome


def raising(*_: Any, **__: Any) -> Any:
    """A fault of ours."""
    raise RuntimeError("boom")


@pytest.fixture
def house() -> House:
    """A manager on the loop."""
    return House()


def waits_for_its_dataset(desk: Desk, **changes: Any) -> JobRequested:
    wanted = job(job_type="export", definition_id="parcels", **changes)
    assert desk.say(wanted) == []
    return wanted


def test_a_parked_request_whose_timer_raises_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    wanted = waits_for_its_dataset(desk)
    monkeypatch.setattr(request, "named_definition", raising)
    told = desk.wait(30)
    assert told == ["execution.rejected", "job.requested.dlq"]
    assert dict(desk.out[-1].headers)["ms_reason"] == b"internal_error"
    assert isinstance(desk.states[wanted.execution_id], Execution)


def test_a_parked_request_whose_timer_cannot_even_be_answered_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It used to lose its timer, and its request never ended."""
    desk = Desk()
    wanted = waits_for_its_dataset(desk)
    with monkeypatch.context() as broken:
        broken.setattr(request, "named_definition", raising)
        broken.setattr(request, "request_hash", raising)
        assert desk.wait(30) == []
    assert desk.due[wanted.execution_id] == desk.now + TIMER_AGAIN
    assert desk.wait(60) == ["execution.rejected", "job.requested.dlq"]


def test_commands_that_wait_for_their_execution_are_dead_letters_when_the_timer_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    desk.say(command("cancel"))
    monkeypatch.setattr(type(desk.manager), "_unknown", raising)
    assert desk.wait(60) == ["execution.commands.dlq"]
    assert desk.states[job().execution_id] is None


def test_the_timer_of_an_execution_that_has_ended_is_kept_when_it_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    desk.say(job())
    desk.say(outcome(order(job())))
    key = job().execution_id
    desk.due[key] = desk.now
    monkeypatch.setattr(type(desk.manager), "due", raising)
    desk.wait(0)
    assert desk.due[key] == desk.now + TIMER_AGAIN


def test_a_request_that_raises_when_it_comes_is_rejected(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "original", lambda _: None)
    monkeypatch.setattr(request, "age_fault", raising)
    house.say(job())
    house.turn()
    assert house.names(job().execution_id) == ["execution.rejected"]
    assert [reason for reason, _, _ in house.dead("job.requested")] == ["internal_error"]


@pytest.mark.parametrize("field", ["step", "kind", "reason", "content_hash", "owner", "role"])
def test_a_command_with_nul_is_a_dead_letter_before_anybody_repeats_it(house: House, field: str) -> None:
    house.say(job())
    house.turn()
    before = house.names(job().execution_id)
    house.say(structs.replace(command("approve"), **{field: "a\0b"}))
    house.turn()
    assert house.names(job().execution_id) == before
    assert [reason for reason, _, _ in house.dead("execution.commands")] == ["bad_name"]


def test_a_command_with_an_unknown_step_is_answered(house: House) -> None:
    house.say(job())
    house.say(structs.replace(command("approve"), step="nobody"))
    house.turn()
    assert isinstance(house.history(job().execution_id)[-1], events.CommandRefused)

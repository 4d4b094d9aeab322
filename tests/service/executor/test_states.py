"""Every command in every state of a pipeline is answered once; a cancellation ends each of them for good."""

from collections.abc import Callable

import pytest

from services.contracts import events
from services.contracts.status import Status
from tests.service.executor.pipelines import ID, Runner, approval, call, chain, request, step

KINDS = ("amend", "approve", "cancel", "explode", "pause", "reject", "remark", "rerun", "resume", "start")
Situation = Callable[[Runner], object]


def _retry_pending(runner: Runner) -> None:
    runner.start(step("a"))
    runner.end("a", "retry")


def _paused(runner: Runner) -> None:
    runner.start(*chain(step("a"), step("b")))
    runner.tell("pause", "dave")
    runner.end("a")


def _paused_approval(runner: Runner) -> None:
    runner.start(approval())
    runner.tell("pause", "dave")


def _between(runner: Runner) -> None:
    runner.start(*chain(step("a", wait_after_s=50), step("b")))
    runner.end("a")


def _exit_action(runner: Runner) -> None:
    runner.start(step("a", call(on="exit", wait=True)))
    runner.end("a")


def _action_to_retry(runner: Runner) -> None:
    runner.start(step("a", call(wait=True)))
    runner.end("a.enter.0.1", "retry")


def _half_approved(runner: Runner) -> None:
    runner.start(approval(quorum=2))
    runner.tell("approve", "dave")


SITUATIONS: dict[str, Situation] = {
    "held": lambda runner: runner.start(step("a"), hold=True),
    "pending": lambda runner: runner.start(*chain(step("a"), step("b"))),
    "enter action": lambda runner: runner.start(step("a", call(wait=True))),
    "action cast": lambda runner: runner.start(step("a", call())),
    "action to retry": _action_to_retry,
    "exit action": _exit_action,
    "retry pending": _retry_pending,
    "pause before": lambda runner: runner.start(step("a", pause_before=True)),
    "wait before": lambda runner: runner.start(step("a", wait_before_s=50)),
    "wait after": _between,
    "approval": lambda runner: runner.start(*chain(approval(), step("b"))),
    "half approved": _half_approved,
    "paused": _paused,
    "paused approval": _paused_approval,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS.keys())
def test_every_command_in_every_state_is_answered_once(
    runner: Runner, situation: Situation, kind: str
) -> None:
    situation(runner)
    before = runner.desk.state(request())
    changes = {"values": {"amount": 5}} if kind == "amend" else {}
    given = runner.command(kind, "alice", "the one", reason="because", **changes)
    runner.desk.say(given)
    answers = [event for event in runner.desk.history(ID) if event.causation_id == given.command_id]
    assert answers
    if isinstance(answers[-1], events.CommandRefused):
        assert len(answers) == 1
        after = runner.desk.state(request())
        assert (after.status, after.steps, after.agenda) == (before.status, before.steps, before.agenda)
    assert given.command_id in runner.desk.state(request()).commands
    assert runner.desk.say(given) == []


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS.keys())
def test_a_cancellation_is_the_end_in_every_state(runner: Runner, situation: Situation) -> None:
    situation(runner)
    assert "execution.cancelled" in runner.tell("cancel", "alice", "the end")
    asked = runner.asked()
    ended = runner.desk.state(request())
    assert ended.status is Status.CANCELLED
    for name in {*asked}:
        assert runner.end(name) == []
        assert runner.end(name, "retry") == []
    assert runner.desk.wait(40 * 86400) == []
    for kind in ("approve", "resume", "start", "pause", "amend", "cancel", "reject", "remark"):
        assert runner.tell(kind, "alice", "late", reason="r") == ["command.refused"]
        assert runner.refusal() == (kind, "already_ended")
    assert runner.asked() == asked
    after = runner.desk.state(request())
    assert (after.status, after.steps, after.hooks) == (ended.status, ended.steps, ended.hooks)


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS.keys())
def test_an_executions_timeout_ends_every_state_that_has_begun(runner: Runner, situation: Situation) -> None:
    """A held one has not begun: its time runs from its start."""
    original = runner.start
    runner.start = lambda *steps, **more: original(*steps, timeout_s=3, **more)  # type: ignore[method-assign]
    situation(runner)
    told = runner.desk.wait(3)
    held = runner.desk.state(request()).held
    assert ("execution.failed" in told) != held

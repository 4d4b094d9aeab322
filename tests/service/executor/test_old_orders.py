"""Orders that no worker took for days: asked about, published again, revoked while nobody listened."""

from services.contracts.commands import StepOutcome
from tests.service.executor.house import Desk, outcome
from tests.service.executor.pipelines import Runner, request, step
from tests.service.executor.situations import attempt, pending, running

DAY_S = 24 * 3600


def expired() -> StepOutcome:
    """A worker came after so long that it asks whether the order still holds."""
    return outcome(attempt(), outcome="retry", reason="order_expired", message="older than a day")


def test_an_order_that_a_worker_asks_about_goes_out_anew_without_a_counted_attempt(desk: Desk) -> None:
    pending(desk)
    desk.wait(DAY_S - 3600)
    expected = ["execution.started", "step.running", "step.retry_scheduled", "step.requested"]
    assert desk.say(expired()) == expected
    assert desk.orders()[-1].requested_at == desk.now
    assert desk.state().steps[0].counted == 0
    assert desk.say(outcome(attempt(2)))[-1] == "execution.completed"


def test_a_step_cancelled_while_workers_were_away_26_hours_is_not_ordered_anew(runner: Runner) -> None:
    runner.start(step("a", queue_timeout_s=30 * DAY_S))
    runner.tell("cancel")
    runner.desk.wait(26 * 3600)
    assert runner.end("a", "retry", reason="order_expired") == []
    assert len(runner.desk.orders()) == 1


def test_an_order_is_published_again_before_its_topic_drops_it(runner: Runner) -> None:
    runner.start(step("a", queue_timeout_s=30 * DAY_S))
    assert runner.desk.wait(6 * DAY_S + 1) == ["step.requested"]
    assert runner.desk.wait(20 * DAY_S) == ["step.requested"] * 3
    assert len({order.attempt_id for order in runner.desk.orders()}) == 1
    assert runner.desk.wait(4 * DAY_S)[-2:] == ["execution.failed", "step.control"]
    assert runner.desk.state(request()).steps[0].asked == 1


def test_an_order_that_was_taken_is_not_published_again(desk: Desk) -> None:
    running(desk)
    state = desk.state()
    assert state.steps[0].take_id is not None
    assert desk.due[state.execution_id] == state.steps[0].lease_until


def test_an_order_that_waits_for_the_end_of_a_pause_is_not_published(runner: Runner) -> None:
    runner.start(step("a", queue_timeout_s=30 * DAY_S))
    runner.tell("pause")
    assert runner.desk.wait(7 * DAY_S) == []
    assert runner.tell("resume", key="2") == ["execution.resumed"]
    assert runner.desk.wait(1) == ["step.requested"]

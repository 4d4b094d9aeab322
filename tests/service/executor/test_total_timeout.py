"""How long a step may take: `timeout_s` bounds each attempt, `total_timeout_s` all of them."""

from services.contracts import events
from services.executor.core.decide import WORKER_FIRST
from tests.service.executor.house import claim
from tests.service.executor.pipelines import ID, Runner, call, goto, step

POLICY = {"backoff_s": 10, "backoff_max_s": 10, "jitter": 0}
GRACE_S = int(WORKER_FIRST.total_seconds())


def failure(runner: Runner) -> tuple[str, str]:
    """Reason and message of the step's failure."""
    ended = [event for event in runner.desk.history(ID) if isinstance(event, events.StepFailed)]
    return ended[-1].reason, ended[-1].message


def test_each_attempt_has_the_timeout_anew(runner: Runner) -> None:
    runner.start(step("a", timeout_s=30, max_attempts=3, retry=POLICY))
    for _ in range(2):
        runner.desk.wait(25)
        runner.end("a", "retry")
        assert runner.desk.wait(10) == ["step.requested"], "70 s in all, and no timeout"
    assert runner.end("a")[-1] == "execution.completed"


def test_all_attempts_together_are_bounded_by_the_total(runner: Runner) -> None:
    runner.start(step("a", timeout_s=60, total_timeout_s=60, max_attempts=9, retry=POLICY))
    runner.desk.wait(20)
    runner.end("a", "retry")
    assert runner.desk.wait(10) == ["step.requested"]
    runner.desk.say(claim(runner.order("a").attempt_id))
    runner.desk.say(claim(runner.order("a").attempt_id))
    for _ in range(2):
        assert runner.desk.wait(14) == []
        runner.desk.say(claim(runner.order("a").attempt_id))
    assert runner.desk.wait(2) == ["step.failed", "execution.failed", "step.control"]
    message = "the step took longer than its total timeout (total_timeout_s) of 60 s; attempts begun: 2"
    assert failure(runner) == ("total_timeout", message)
    assert runner.desk.wait(86400) == []


def test_an_attempt_that_would_begin_too_late_is_not_waited_for(runner: Runner) -> None:
    runner.start(step("a", timeout_s=20, total_timeout_s=25, max_attempts=9, retry=POLICY))
    runner.desk.wait(15)
    assert runner.end("a", "retry", reason="http_503")[-1] == "execution.failed"
    assert failure(runner) == ("http_503", "m; the next attempt would begin after the step's total_timeout_s")


def test_a_wait_for_a_worker_counts(runner: Runner) -> None:
    runner.start(step("a", total_timeout_s=60))
    assert runner.desk.wait(59) == []
    assert runner.desk.wait(1)[0] == "step.failed"
    assert failure(runner)[0] == "total_timeout"


def test_a_pause_counts(runner: Runner) -> None:
    runner.start(step("a", timeout_s=20, total_timeout_s=60, retry=POLICY))
    runner.end("a", "retry")
    runner.tell("pause")
    told = runner.desk.wait(60)
    assert "step.failed" in told
    assert failure(runner)[0] == "total_timeout"


def test_what_was_away_is_waited_for_as_long_as_the_total(runner: Runner) -> None:
    runner.start(step("a", timeout_s=10, total_timeout_s=40, max_attempts=1))
    runner.desk.wait(20)
    runner.end("a", "retry", reason="source_unavailable")
    assert runner.desk.wait(2) == ["step.requested"], "after more than timeout_s"
    runner.desk.wait(17)
    assert runner.end("a", "retry", reason="source_unavailable")[-1] == "execution.failed"
    assert failure(runner)[0] == "source_unavailable"


def test_each_visit_begins_anew_and_hooks_do_not_count(runner: Runner) -> None:
    again = goto("a", "success", when="$.steps.a.result = null")
    runner.start(step("a", call(wait=True), again, total_timeout_s=60))
    for _ in range(2):
        runner.desk.wait(20)
        runner.end([name for name in runner.asked() if ".enter." in name][-1])
        runner.desk.wait(50)
        told = runner.end("a")
    assert "step.completed" in told

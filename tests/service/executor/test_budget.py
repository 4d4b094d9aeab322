"""What one execution may lead to: reproduced with a pipeline that loops to itself."""

from typing import Any

from services.contracts import events
from services.contracts.status import Status
from services.executor.core.budget import Budget
from services.executor.manager import Manager
from services.runtime.schemas import codec
from tests.service.executor.house import Desk
from tests.service.executor.pipelines import ID, Runner, call, chain, goto, request, step

BODY = {"text": "x" * 16_000}
KIB = 1024


def bounded(runner: Runner, **budget: Any) -> Runner:
    """A desk whose manager has another budget."""
    runner.desk.manager = Manager(codec(), budget=Budget(**budget))
    return runner


def loop(runner: Runner) -> int:
    """A step that goes to itself with a result of 16 kB, until the end; how often it ran."""
    runner.start(step("a", goto("a")))
    runs = 0
    while not runner.desk.state(request()).status.terminal:
        runner.end("a", output=BODY)
        runs += 1
    return runs


def event_bytes(desk: Desk) -> int:
    records = [record for record in desk.out if record.topic == "execution.events"]
    return sum(len(record.value or b"") for record in records)


def failure(runner: Runner) -> tuple[str, str]:
    told = runner.desk.history(ID)[-1]
    assert isinstance(told, events.ExecutionFailed)
    return told.reason, told.message


def test_a_small_request_that_loops_to_itself_ends_by_the_bytes_of_its_events(runner: Runner) -> None:
    runs = loop(bounded(runner, bytes=256 * KIB))
    assert 10 < runs < 20
    assert event_bytes(runner.desk) < (256 + 2 * 16) * KIB
    reason, message = failure(runner)
    assert reason == "budget_exceeded"
    assert message.endswith(f"bytes of events; its budget (MILLSTREAM_BUDGET__BYTES) is {256 * KIB}")
    state = runner.desk.state(request())
    assert state.status is Status.FAILED and state.event_bytes == event_bytes(runner.desk)


def test_it_ends_by_the_number_of_its_events(runner: Runner) -> None:
    loop(bounded(runner, events=50))
    assert failure(runner)[1].endswith("events; its budget (MILLSTREAM_BUDGET__EVENTS) is 50")
    assert len(runner.desk.history(ID)) <= 50 + 4


def test_it_ends_by_its_step_runs_whatever_the_pipeline_allows(runner: Runner) -> None:
    assert loop(bounded(runner, step_runs=7)) == 7
    expected = "the execution has led to 7 ended steps; its budget (MILLSTREAM_BUDGET__STEP_RUNS) is 7"
    assert failure(runner) == ("budget_exceeded", expected)


def test_a_loop_within_one_decision_ends_too(runner: Runner) -> None:
    """No worker is asked: the step fails before, and its error leads to itself."""
    broken = {"method": "GET", "url": f"https://a.example/{'x' * 10_000}${{steps.b.result.x}}"}
    bounded(runner, events=60).start(step("a", goto("a", "error"), kind="API", parameters=broken), step("b"))
    assert failure(runner)[0] == "budget_exceeded"
    assert len(runner.desk.history(ID)) <= 60 + 4


def test_what_is_out_is_stopped_and_its_step_cancelled(runner: Runner) -> None:
    bounded(runner, events=6).start(step("a", call()), step("b"))
    told = runner.tell("pause") + runner.tell("resume", key="2")
    told += runner.tell("pause", key="3") + runner.tell("resume", key="4")
    assert told[-4:] == ["step.cancelled", "hook.failed", "execution.failed", "step.control"]
    assert failure(runner)[0] == "budget_exceeded"
    assert runner.end("a") == [], "its worker's late word changes nothing"


def test_a_plan_of_the_most_and_largest_results_stays_within_the_default(runner: Runner) -> None:
    steps = chain(*[step(f"step {number}") for number in range(100)])
    runner.start(*steps)
    for number in range(100):
        told = runner.end(f"step {number}", output={"text": "x" * 64 * KIB})
    assert told[-1] == "execution.completed"


def test_a_loop_of_the_longest_kind_with_results_of_7_kb_stays_within_the_default(runner: Runner) -> None:
    runs, whole = 100, Budget()
    bounded(runner, bytes=whole.bytes * runs // whole.step_runs).start(
        step("a", goto("a"), max_step_runs=runs)
    )
    for _ in range(runs):
        runner.end("a", output={"text": "x" * 7_000})
    told = runner.desk.history(ID)[-1]
    assert isinstance(told, events.ExecutionFailed) and told.reason == "loop_limit"

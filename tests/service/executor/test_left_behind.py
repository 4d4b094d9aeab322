"""Actions that are out when their execution ends: each of them comes to an end, and gives back its room."""

from services.contracts import events
from services.executor.core import loads
from services.executor.core.admission import Windows
from services.executor.manager import Manager
from services.runtime.schemas import codec
from tests.service.executor.house import claim
from tests.service.executor.pipelines import ID, Runner, call, request, step

DAY_S = 24 * 3600


def left_behind(runner: Runner) -> events.HookFailed:
    """The end of the action that the execution left, with nothing out any more."""
    (*_, last) = runner.desk.history(ID)
    assert isinstance(last, events.HookFailed)
    assert loads.loads(runner.desk.state(request())) == [None, None, None]
    assert runner.desk.due[ID] is None
    return last


def test_a_worker_that_dies_with_a_left_action_leaves_no_room_taken(runner: Runner) -> None:
    runner.start(step("one", call()))
    runner.desk.say(claim(runner.order("one.enter.0.1").attempt_id, execution_id=ID))
    assert runner.end("one")[-1] == "execution.completed"
    assert runner.desk.wait(30) == ["hook.failed", "step.control"]
    assert left_behind(runner).reason == "worker_lost"
    assert runner.asked() == ["one.enter.0.1", "one"]  # nothing is asked for after the last word


def test_a_left_action_whose_worker_only_says_that_it_lives_runs_into_its_timeout(runner: Runner) -> None:
    runner.start(step("one", call()))
    said = claim(runner.order("one.enter.0.1").attempt_id, execution_id=ID)
    runner.desk.say(said)
    runner.end("one")
    told = []
    for _ in range(8):
        told += runner.desk.wait(10) + runner.desk.say(said)
    assert told.count("hook.failed") == 1
    assert left_behind(runner).reason == "timeout"


def test_left_actions_that_nobody_runs_are_given_up(runner: Runner) -> None:
    """Nobody waits for them, and there are no workers."""
    runner.desk.manager = Manager(codec(), Windows(1, 1, 1, 1))
    runner.start(step("one", call(on="success"), call("Logger:end", on="success")))
    runner.end("one")
    assert runner.asked() == ["one", "one.success.0.1", "one.success.1.1"]
    assert runner.desk.wait(DAY_S + 1).count("hook.failed") == 2
    assert left_behind(runner).reason == "queue_timeout"

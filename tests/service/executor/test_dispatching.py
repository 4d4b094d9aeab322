"""Steps that wait in the manager: for room, in turns, until their time is up; on the loop in memory."""

import threading
from datetime import timedelta
from typing import Any

from services.contracts import envelope, events, ids
from services.contracts.commands import Command, DefinitionState, JobRequested, StepRequested
from services.contracts.partition import partition_of
from services.contracts.status import Status
from services.executor.core.admission import Windows
from services.executor.manager import INPUTS, OUTPUTS, Manager
from services.runtime.entropy import LocalClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.loop import Limits, Processor
from services.runtime.schemas import codec
from tests.claims import in_memory
from tests.service.executor.house import DEAD, NOW, Desk, command, job, outcome
from tests.service.executor.pipelines import Runner, call, step

SMALL = Windows(1, 1, 1, 1)


class Floor:
    """A manager with room for one step of an index, and jobs that all lie on one index."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.broker.create(*INPUTS, *OUTPUTS, *DEAD)
        self.tables = Tables(LocalClock())
        self.restart()

    def restart(self) -> None:
        """Another manager takes over."""
        self.broker.members.clear()
        log = MemoryLog(self.broker)
        self.loop = Processor(
            Manager(codec(), SMALL), MemoryStore(self.tables), log, in_memory(), OUTPUTS, Limits(idle_s=0)
        )
        log.join(INPUTS)
        self.turn()

    def say(self, *records: Command) -> None:
        for record in records:
            self.broker.append(envelope.command(record, codec().encode(record)))
        self.turn()

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(threading.Event())

    def orders(self) -> list[str]:
        """Executions whose step went out, in order; once each, though an heir publishes its outbox again."""
        found: list[StepRequested] = [
            codec().decode("step.requested", record.value)  # type: ignore[misc]
            for record in self.broker.records("step.requested")
        ]
        told = sorted(found, key=lambda order: order.requested_at)
        return list(dict.fromkeys(order.execution_id for order in told))

    def done(self, execution_id: str, wanted: JobRequested) -> None:
        self.say(outcome(ids.attempt_id(execution_id, "noop", 1), wanted))


def on_one_index(count: int, tenant: str = "acme", **changes: Any) -> list[JobRequested]:
    """Jobs of a tenant whose homes are the same."""
    found: list[JobRequested] = []
    number = 0
    while len(found) < count:
        number += 1
        execution_id = ids.execution_id(tenant, "shop", "topic", f"{tenant}{number}{changes}")
        if partition_of(execution_id.encode(), 12) == 5:
            found.append(job(execution_id=execution_id, tenant=tenant, **changes))
    return found


def test_what_finds_no_room_is_accepted_and_waits_without_an_event() -> None:
    floor = Floor()
    first, second = on_one_index(2)
    floor.say(first, second)
    assert floor.orders() == [first.execution_id]
    told = [dict(record.headers)["ce_type"] for record in floor.broker.records("execution.events")]
    assert told == [b"execution.accepted"] * 2
    floor.done(first.execution_id, first)
    assert floor.orders() == [first.execution_id, second.execution_id]


def test_a_tenant_with_few_jobs_does_not_wait_behind_one_with_many() -> None:
    floor = Floor()
    many = on_one_index(20, "many")
    few = on_one_index(2, "few")
    floor.say(*many)
    floor.say(*few)
    by_id = {one.execution_id: one for one in (*many, *few)}
    for place in range(5):
        order = floor.orders()[place]
        floor.say(outcome(ids.attempt_id(order, "noop", 1), by_id[order], tenant=by_id[order].tenant))
    tenants = [by_id[id].tenant for id in floor.orders()]
    assert tenants == ["many", "many", "few", "many", "few", "many"]


def test_a_higher_class_goes_first() -> None:
    floor = Floor()
    out, low, high = (on_one_index(1, priority=priority)[0] for priority in (1, 0, 2))
    floor.say(out)
    floor.say(low, high)
    floor.done(out.execution_id, out)
    assert floor.orders()[1] == high.execution_id


def test_an_heir_knows_who_is_out_and_who_waits() -> None:
    floor = Floor()
    first, second, third = on_one_index(3)
    floor.say(first)
    floor.say(second)
    floor.restart()
    floor.say(third)
    assert floor.orders() == [first.execution_id]
    floor.done(first.execution_id, first)
    assert floor.orders() == [first.execution_id, second.execution_id]
    floor.done(second.execution_id, second)
    assert floor.orders()[2:] == [third.execution_id]


def test_who_is_cancelled_while_it_waits_never_goes_out() -> None:
    floor = Floor()
    first, second, third = on_one_index(3)
    floor.say(first)
    floor.say(second)
    floor.say(third)
    floor.say(command("cancel", second))
    floor.done(first.execution_id, first)
    assert floor.orders() == [first.execution_id, third.execution_id]


def test_who_is_paused_while_it_waits_lets_others_go_first() -> None:
    floor = Floor()
    first, second, third = on_one_index(3)
    for one in (first, second, third):
        floor.say(one)
    floor.say(command("pause", second))
    floor.done(first.execution_id, first)
    assert floor.orders() == [first.execution_id, third.execution_id]
    floor.say(command("resume", second))
    floor.done(third.execution_id, third)
    assert floor.orders()[2:] == [second.execution_id]


def test_a_step_that_nobody_had_room_for_fails_by_its_queue_timeout(desk: Desk) -> None:
    desk.manager = Manager(codec(), SMALL)
    first, second = on_one_index(2)
    desk.say(first)
    assert desk.say(second) == ["execution.accepted"]
    desk.say(outcome(ids.attempt_id(first.execution_id, "noop", 1), first, outcome="retry"))
    desk.wait(24 * 3600 + 1)
    (*_, last) = desk.history(second.execution_id)
    assert isinstance(last, events.ExecutionFailed) and last.reason == "queue_timeout"


def test_a_lost_queue_is_not_told_of_steps_that_were_never_put_there() -> None:
    floor = Floor()
    first, second = on_one_index(2)
    floor.say(first, second)
    floor.broker.create("step.requested")
    floor.restart()
    floor.turn()
    assert floor.orders() == [first.execution_id]


def test_actions_go_out_with_their_steps_turn(runner: Runner) -> None:
    """Each waiting for a turn of its own, they would be called long after the end."""
    manager = runner.desk.manager = Manager(codec(), SMALL)
    runner.start(step("one", call(on="enter"), call("Logger:end", on="enter"), kind="API"))
    assert runner.asked() == ["one.enter.0.1", "one.enter.1.1"]
    runner.end("one.enter.0.1")
    assert not list(manager.wanted(runner.desk.now)), "the other one is out"
    runner.end("one.enter.1.1")
    for execution_id, _ in list(manager.wanted(runner.desk.now)):
        runner.desk.wake(execution_id)
    assert runner.asked()[2:] == ["one"]
    assert runner.desk.now - NOW < timedelta(seconds=1)


def test_another_attempt_waits_for_no_other_turn(desk: Desk) -> None:
    """What was out goes out again, whoever took its room in between."""
    desk.manager = Manager(codec(), SMALL)
    first, second = on_one_index(2)
    desk.say(first)
    desk.say(outcome(ids.attempt_id(first.execution_id, "noop", 1), first, outcome="retry"))
    assert "step.requested" in desk.say(second)
    assert "step.requested" in desk.wait(60)
    told = [(order.execution_id, order.attempt) for order in desk.orders()]
    assert told[:3] == [(first.execution_id, 1), (second.execution_id, 1), (first.execution_id, 2)]


def test_a_pipeline_that_is_only_named_brings_its_limits_and_its_class(desk: Desk) -> None:
    body = {
        "steps": [{"step_name": "one", "step_type": "NOOP"}],
        "limits": [{"key": "pipeline", "max": 1}, {"key": "key:${shop}", "max": 2, "holds_paused": True}],
        "priority": "high",
        "timeout_s": 60,
        "form": [{"name": "shop", "type": "string", "default": "main"}],
    }
    desk.say(
        DefinitionState(
            kind="pipeline",
            tenant="acme",
            id="sell",
            revision=1,
            changed_at=NOW,
            deleted=False,
            body=body,
        )
    )
    wanted = job(job_type="pipeline", definition_id="sell", parameters={"values": {}, "time_range": None})
    desk.say(wanted)
    known = desk.state().request
    assert known is not None
    assert (known.priority, known.timeout_s) == (2, 60)
    assert isinstance(known.limits, list)
    assert [limit["key"] for limit in known.limits] == ["pipeline:sell", "key:main"]
    assert desk.state().permits == ("acme/key:main", "acme/pipeline:sell")


def test_a_pause_comes_before_a_turn_of_the_same_batch(runner: Runner) -> None:
    """It was chosen before the pause came; its permit may be another's by now."""
    runner.desk.manager = Manager(codec(), SMALL)
    limit = {"key": "tenant", "max": 1, "holds_paused": False}
    first, second = on_one_index(1)[0], on_one_index(1, limits=[limit])[0]
    runner.desk.say(first)
    runner.desk.say(second)
    runner.desk.say(outcome(ids.attempt_id(first.execution_id, "noop", 1), first))
    assert list(runner.desk.manager.wanted(runner.desk.now)) == [(second.execution_id, 5)]
    runner.desk.say(command("pause", second))
    assert runner.desk.wake(second.execution_id) == []
    assert runner.desk.state(second).permits == ()
    assert runner.desk.say(command("resume", second)) == ["execution.resumed", "step.requested"]
    assert runner.desk.state(second).permits == ("acme/tenant",)


def test_a_pause_does_not_use_up_the_queue_timeout_of_what_it_keeps_back(runner: Runner) -> None:
    desk = runner.desk
    desk.manager = Manager(codec(), SMALL)
    first, second = on_one_index(2)
    desk.say(first)
    desk.say(second)
    desk.say(command("pause", second))
    assert desk.wait(25 * 3600) == ["step.failed", "execution.failed", "step.control"]  # the other one
    assert desk.state(second).status is Status.WAITING
    assert desk.say(command("resume", second)) == ["execution.resumed", "step.requested"]
    assert "step.failed" in desk.wait(24 * 3600)

"""What is larger than a record may be is refused, rejected or fails with a reason: nobody waits in vain."""

from typing import Any

from services.contracts import events
from services.contracts.commands import DefinitionState
from services.executor.core.filling import ORDER_BYTES_MAX
from services.runtime.processor.batch import RECORD_BYTES_MAX
from tests.pipelining import linked
from tests.service.executor.house import NOW, Desk, command, job
from tests.service.executor.pipelines import ID, Runner, approval, call, chain, request, step

HUGE = {"x": "y" * RECORD_BYTES_MAX}
CONTROLS = "\x01" * 16_000
"""16,000 bytes to fill in, 96,000 as JSON: within the limits of a value, of a request and of a template."""


def test_a_command_that_leads_to_too_large_a_record_is_refused(runner: Runner) -> None:
    runner.start(*chain(approval(), step("b")))
    runner.plan(*chain(approval(), step("b", parameters=HUGE)))
    assert runner.tell("amend", "dave", values={"amount": 9}) == ["command.refused"]
    assert runner.refusal() == ("amend", "too_large")
    assert runner.desk.state(request()).request.parameters["values"] == {"amount": 3}  # type: ignore[union-attr]
    assert runner.tell("approve", "alice")[-1] == "step.requested", "nothing was amended"


def test_a_request_whose_plan_no_record_holds_is_rejected(runner: Runner) -> None:
    assert runner.start(step("a", parameters=HUGE)) == ["execution.rejected", "job.requested.dlq"]
    [rejected] = runner.desk.history(ID)
    assert isinstance(rejected, events.ExecutionRejected)
    assert "expected at most 900000" in rejected.errors[0].message


def output(references: int) -> list[dict[str, Any]]:
    """An approval, then a step whose output takes the value so many times."""
    asked, worked = linked("ok", "work", work={"step_type": "TRANSFORM"})
    asked["step_type"] = "WAIT_FOR_APPROVAL"
    worked["parameters"] = {"output": ["${note}"] * references}
    return [asked, worked]


def wait(desk: Desk, references: int) -> None:
    """A request of it waits for its approval."""
    body = {"steps": output(references), "form": [{"name": "note"}]}
    known = {"tenant": "acme", "id": "large", "revision": 1, "changed_at": NOW, "deleted": False}
    desk.say(DefinitionState(kind="pipeline", body=body, **known))  # type: ignore[arg-type]
    parameters = {"values": {"note": CONTROLS}, "time_range": None}
    assert desk.say(job(job_type="pipeline", definition_id="large", parameters=parameters))[-1] == (
        "execution.waiting"
    )


def test_a_step_whose_order_no_record_holds_fails_and_the_approval_is_answered(desk: Desk) -> None:
    wait(desk, 16)
    assert desk.say(command("approve", requested_by="carol", role="admin")) == [
        *("approval.decided", "step.completed", "step.failed", "execution.failed"),
    ]
    failed = desk.history(job().execution_id)[-2]
    assert isinstance(failed, events.StepFailed)
    assert (failed.step, failed.reason) == ("work", "too_large")
    assert failed.message.startswith("parameters: expected at most 800000 bytes as JSON")


def test_the_largest_order_is_sent(desk: Desk) -> None:
    wait(desk, 8)
    assert desk.say(command("approve", requested_by="carol", role="admin"))[-1] == "step.requested"
    [sent] = [record for record in desk.out if record.topic == "step.requested"]
    assert ORDER_BYTES_MAX * 0.9 < len(sent.value or b"") < RECORD_BYTES_MAX


def test_an_action_whose_order_no_record_holds_fails_alone(runner: Runner) -> None:
    parameters = {"method": "POST", "url": "https://a.example/", "data": ["${note}"] * 16}
    note = {"note": CONTROLS}
    runner.start(step("a", call("Logger:large", parameters=parameters)), values=note)
    failed = [event for event in runner.desk.history(ID) if isinstance(event, events.HookFailed)]
    assert [event.reason for event in failed] == ["too_large"]
    assert runner.asked() == ["a"]

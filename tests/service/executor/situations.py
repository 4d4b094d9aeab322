"""Executions of the manager on a desk, each brought to where a test begins."""

from datetime import timedelta

from services.contracts import ids
from services.contracts.commands import File
from tests.service.executor.house import NOW, Desk, claim, command, job, outcome

ID = job().execution_id
FILE = File(name="a.csv", key="k", batch="a", rows=3, bytes=30, sha256="0" * 64, content_type="text/csv")
EXPORT = job(job_type="export", definition_id="parcels")


def attempt(number: int = 1) -> str:
    """The id of an attempt of the noop."""
    return ids.attempt_id(ID, "noop", number)


def pending(desk: Desk) -> None:
    desk.say(job())


def running(desk: Desk) -> None:
    pending(desk)
    desk.say(claim(attempt()))


def retry_pending(desk: Desk) -> None:
    running(desk)
    desk.say(outcome(attempt(), outcome="retry", reason="r", message="m"))


def asked_again(desk: Desk) -> None:
    retry_pending(desk)
    desk.wait(2)


def later(desk: Desk) -> None:
    desk.say(job(run_at=NOW + timedelta(hours=1)))


def without_definition(desk: Desk) -> None:
    desk.say(EXPORT)


def completed(desk: Desk) -> None:
    pending(desk)
    desk.say(outcome(attempt(), files=(FILE,)))


def failed(desk: Desk) -> None:
    pending(desk)
    desk.say(outcome(attempt(), outcome="fail", reason="r", message="m"))


def cancelled(desk: Desk) -> None:
    pending(desk)
    desk.say(command("cancel", key="before"))


def rejected(desk: Desk) -> None:
    desk.say(job(job_type="teleport"))

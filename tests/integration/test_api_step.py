"""API steps in a real worker, on a real broker; the test plays the manager, and a receiver the world."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from services.contracts import ids
from services.contracts.commands import StepOutcome, StepRequested
from tests.receiver import Receiver, hang, status
from tests.stack import OwnStack
from tests.waiting import until, until_async
from tests.working import Manager, Workers

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

CANARY = "canary-of-the-shop"
SETTINGS = {
    "MILLSTREAM_OUTBOUND__ALLOW": "127.0.0.0/8",
    "MILLSTREAM_SECRETS": json.dumps({"acme": {"shop": CANARY}, "emca": {"other": "another"}}),
}


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The worker uses the fixed topic names."""
    return own


def call(manager: Manager, url: str, **parameters: Any) -> StepRequested:
    given = {"method": "POST", "url": url, "headers": {}, "data": {}, **parameters}
    return replace(manager.request("API", given), step="Make API Call")


async def ended(manager: Manager, request: StepRequested) -> StepOutcome:
    await asyncio.to_thread(manager.dispatch, request)
    return await asyncio.to_thread(manager.outcome, request)


async def test_a_call_and_its_outcome(manager: Manager, workers: Workers, receiver: Receiver) -> None:
    answer = {"you_sent": f"Bearer {CANARY}", "pad": "x" * 40_000}
    receiver.answers(status(200, "Content-Type: application/json\r\n", json.dumps(answer).encode()))
    await asyncio.to_thread(workers.started, **SETTINGS)
    headers = {"Authorization": "Bearer ${secrets.shop}"}
    request = call(manager, receiver.url(), headers=headers, data={"n": 1})
    outcome = await ended(manager, request)
    (sent,) = receiver.calls
    assert sent.headers["authorization"] == f"Bearer {CANARY}"
    assert sent.headers["idempotency-key"] == ids.step_key(request.execution_id, request.step, 1)
    assert json.loads(sent.body) == {"n": 1}
    assert outcome.outcome == "done"
    (file,) = outcome.files
    assert outcome.output["body_file"] == file.name == "Make API Call-response.json"
    assert json.loads(workers.content(file.key)) == {**answer, "you_sent": "Bearer ***"}
    path = workers.folder / "executor_logs" / request.execution_id / "Make API Call.log"
    text = await asyncio.to_thread(lambda: until(path.read_text, 5, "the step's log"))
    assert "api_request method=POST" in text and "api_response status=200" in text
    assert CANARY not in text + workers.log() + repr(outcome)
    assert all(CANARY.encode() not in read.value for reads in manager.records.values() for read in reads)


async def test_every_attempt_sends_the_same_key_and_hears_when_to_come_back(
    manager: Manager, workers: Workers, receiver: Receiver
) -> None:
    receiver.answers(status(503, "Retry-After: 7\r\n"), status(429), status(200))
    await asyncio.to_thread(workers.started, **SETTINGS)
    first = call(manager, receiver.url())
    said = []
    for attempt in (1, 2, 3):
        id = ids.attempt_id(first.execution_id, first.step, attempt)
        said.append(await ended(manager, replace(first, attempt=attempt, attempt_id=id)))
    assert [(one.outcome, one.reason) for one in said] == [
        ("retry", "http_503"), ("retry", "http_429"), ("done", None),
    ]  # fmt: skip
    assert [one.output for one in said[:2]] == [{"retry_after_s": 7.0}, None]
    assert len({sent.headers["idempotency-key"] for sent in receiver.calls}) == 1


async def test_a_revocation_ends_a_hanging_call_within_2_s(
    manager: Manager, workers: Workers, receiver: Receiver
) -> None:
    receiver.answers(hang)
    receiver.answers(status(200), target="/next")
    await asyncio.to_thread(workers.started, MILLSTREAM_WORKER__CALLS="1", **SETTINGS)
    hanging = call(manager, receiver.url())
    following = call(manager, receiver.url("/next"))
    await asyncio.to_thread(manager.dispatch, hanging)

    async def calls(target: str) -> bool:
        return bool(receiver.at(target))

    await until_async(lambda: calls("/hook"), 30, "the call that hangs")
    await asyncio.to_thread(manager.dispatch, following)
    await asyncio.to_thread(manager.revoke, hanging)
    await until_async(lambda: calls("/next"), 3, "the next call, by the only slot")
    assert (await asyncio.to_thread(manager.outcome, following)).outcome == "done"
    assert manager.outcomes(hanging) == []


async def test_without_the_operator_s_word_no_local_address_is_called(
    manager: Manager, workers: Workers, receiver: Receiver
) -> None:
    receiver.answers(status(200))
    await asyncio.to_thread(workers.started)
    outcome = await ended(manager, call(manager, receiver.url()))
    assert (outcome.outcome, outcome.reason) == ("fail", "address_refused")
    assert receiver.calls == []


async def test_receivers_that_hang_hold_up_nobody_else_s_steps(
    manager: Manager, workers: Workers, receiver: Receiver
) -> None:
    """One lane, and more calls than may run at once: of a receiver, and of a tenant."""
    receiver.answers(hang)
    receiver.answers(status(200), target="/quick")
    await asyncio.to_thread(
        workers.started, MILLSTREAM_WORKER__LANES="1", MILLSTREAM_WORKER__CALLS_PER_TENANT="8", **SETTINGS
    )
    hanging = [call(manager, receiver.url(), timeout_s=600) for _ in range(40)]
    await asyncio.to_thread(manager.dispatch, *hanging)

    async def called() -> bool:
        return len(receiver.calls) >= 8

    await until_async(called, 30, "calls that hang")
    others = [replace(manager.request(), tenant="emca") for _ in range(60)]
    others.append(replace(call(manager, receiver.url("/quick")), tenant="emca"))
    await asyncio.to_thread(manager.dispatch, *others)
    for request in others:
        assert (await asyncio.to_thread(manager.outcome, request)).outcome == "done"
    assert len(receiver.at("/hook")) == 8
    assert not any(manager.outcomes(request) for request in hanging)

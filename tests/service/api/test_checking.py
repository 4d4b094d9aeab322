"""Definitions are checked by a process of their own: its answers, its queue, its death."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from services import jobs
from services.api.checking import AT_ONCE_BYTES, WAITING_MAX, Checking
from services.api.core import submission
from services.api.problems import Problem
from services.jobs import documents, pipeline
from services.jobs.refused import Refused
from tests import pipelining
from tests.pipelining import noop

LARGE = {"form": [{"name": "a"}], "steps": [noop(f"step {n}", description="x" * 100) for n in range(60)]}


@pytest.fixture
def checks() -> Iterator[Checking]:
    made = Checking()
    yield made
    made.close()


def test_a_large_text_is_read_as_a_small_one_is(checks: Checking) -> None:
    text = json.dumps(LARGE).encode()
    assert len(text) > AT_ONCE_BYTES
    for is_json in (True, False):
        assert asyncio.run(checks.read(text, is_json)) == documents.parse_yaml(text) == LARGE
    with pytest.raises(documents.Malformed, match="stands twice") as caught:
        asyncio.run(checks.read(b'{"a": 1, "a": 2, "b": "' + b"x" * AT_ONCE_BYTES + b'"}', True))
    assert [error.pointer for error in caught.value.errors] == ["a"]


def test_a_large_definition_has_the_faults_that_it_has(checks: Checking) -> None:
    checks.check(LARGE)
    wrong = {**LARGE, "steps": [*LARGE["steps"], {"step_name": "a", "step_type": "FLY"}]}
    with pytest.raises(Refused) as here:
        pipeline.parse(wrong)
    with pytest.raises(Refused) as there:
        checks.check(wrong)
    assert there.value.errors == here.value.errors


def test_a_request_of_a_large_definition_has_the_plan_that_it_has(checks: Checking) -> None:
    body: dict[str, Any] = {"pipeline": "p", "values": {"a": "x"}, "priority": "high"}
    asked, record = submission.read_request(body), pipelining.request(LARGE)
    planned, steps = asyncio.run(checks.plan(record, asked))
    assert (planned.parameters["values"], planned.priority) == ({"a": "x"}, 2)
    assert planned.requested_at == record.requested_at
    assert steps == jobs.plan(planned)
    with pytest.raises(Refused, match=r"values\.a"):
        asyncio.run(checks.plan(record, submission.read_request({"pipeline": "p"})))


def test_a_process_that_died_is_followed_by_another(checks: Checking) -> None:
    checks.check(LARGE)
    child = checks._child
    assert child is not None
    child.kill()
    child.wait(10)
    checks.check(LARGE)
    assert checks._child is not child


def test_more_than_may_wait_are_refused(checks: Checking) -> None:
    async def crowd() -> list[Any]:
        let_go = asyncio.Event()

        async def store() -> None:
            async with checks.turn():
                await let_go.wait()

        tasks = [asyncio.create_task(store()) for _ in range(WAITING_MAX + 2)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        let_go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [task.exception() for task in done]

    (refused,) = asyncio.run(crowd())
    assert isinstance(refused, Problem) and refused.kind == "unavailable"

"""Canaries in every place of a call: none shows in the step's log, the process's log, or the outcome."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from services.contracts.commands import StepRequested
from services.executor.calls.shown import BODY_CHARS, Shown
from services.executor.steps import CALLS
from services.executor.steps.outcome import Done, Outcome
from services.executor.work.logs import LINE_CHARS_MAX, Logs
from services.executor.work.partition import Place
from services.executor.work.take import Take
from services.runtime.entropy import LocalClock
from tests.calls import LOCAL, api, world
from tests.exporting import EXECUTION, TAKE, World
from tests.receiver import Call, Receiver, receiving, status

SECRET = 'canary-1 "quoted"/\\ä'
WORD = "canary-2-of-eight"
JSON = "Content-Type: application/json\r\n"


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def run(here: World, step: StepRequested, folder: Path) -> tuple[Outcome, str, str]:
    """The outcome, the text of the step's log and that of the process's."""
    logs = Logs(folder, here.blobs, (), LocalClock())
    opened = logs.of(Take(step, TAKE, "tests", Place(0, 0), 0.0))
    with capture_logs() as captured:
        written = opened.logger()
        call = CALLS["API"].run(step, replace(here.context(), log=written))
        ended = here.outbound.caller.begin(call).result(30)
        opened.close()
    text = (folder / EXECUTION / f"{step.step}.log").read_text()
    return ended, text, json.dumps(captured, default=str)


def shown_in(here: World, ended: Outcome) -> str:
    files = [here.content(file.key).decode("utf-8", "replace") for file in getattr(ended, "files", ())]
    return "\n".join([repr(ended), *files])


def repeating(call_status: int, large: bool = False) -> Any:
    """A receiver that repeats whatever it was sent, in JSON and in headers."""

    async def answer(call: Call, writer: Any) -> None:
        said = {"headers": dict(call.headers), "data": call.body.decode(), "pad": "x" * 40_000 * large}
        headers = (
            f"{JSON}ETag: {call.headers['authorization']}\r\nX-Other: {call.headers['authorization']}\r\n"
        )
        await status(call_status, headers, json.dumps(said).encode())(call, writer)

    return answer


@pytest.mark.parametrize(("code", "large"), [(200, False), (200, True), (422, False), (503, True)])
async def test_what_a_receiver_repeats_is_masked(
    receiver: Receiver, tmp_path: Path, code: int, large: bool
) -> None:
    receiver.answers(repeating(code, large))
    with world(LOCAL, token=WORD, other=SECRET) as here:
        step = api(
            receiver.url(),
            headers={"Authorization": "Bearer ${secrets.token}"},
            data={"a": "${secrets.other}", "b": ["x${secrets.token}y"]},
        )
        ended, *logs = await asyncio.to_thread(lambda: run(here, step, tmp_path))
        (call,) = receiver.calls
        assert WORD in call.headers["authorization"] and json.loads(call.body)["a"] == SECRET
        for text in (shown_in(here, ended), *logs):
            assert "canary" not in text
            assert "***" in text
    if code == 200 and not large:
        assert isinstance(ended, Done)
        assert ended.output["headers"]["etag"] == "Bearer ***"
        assert json.loads(ended.output["body"]["data"]) == {"a": "***", "b": ["x***y"]}


async def test_names_that_mean_secrets_are_masked_in_the_log(receiver: Receiver, tmp_path: Path) -> None:
    answer = {"access_token": "canary-3", "nested": [{"Password": ["canary-4"]}], "plain": "shown"}
    receiver.answers(status(200, f"{JSON}Set-Cookie: id=canary-5\r\n", json.dumps(answer).encode()))
    with world(LOCAL) as here:
        step = api(
            receiver.url("/hook?page=2&api_key=canary-6"),
            headers={"X-Api-Key": "canary-7", "Cookie": "canary-8", "X-Plain": "shown"},
            data={"client_secret": "canary-9", "credentials": {"a": "canary-0"}, "plain": "shown"},
        )
        receiver.script["/hook?page=2&api_key=canary-6"] = receiver.script["/hook"]
        ended, *logs = await asyncio.to_thread(lambda: run(here, step, tmp_path))
    for text in logs:
        assert "canary" not in text
        assert "page=2" in text
        assert text.count("shown") == 3
    assert isinstance(ended, Done)
    assert ended.output["body"] == answer  # the next step may need the token


@pytest.mark.parametrize(
    "text", ["token=canary&a=1", 'password: "canary"', "Authorization: Bearer canary", "api-key = canary"]
)
def test_names_that_mean_secrets_are_masked_in_text(text: str) -> None:
    assert "canary" not in Shown(()).body(text.encode())


async def test_a_secret_that_the_answer_cuts_off_is_masked(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers(status(422, "", f"you sent {WORD}"[:-4].encode()))
    with world(LOCAL, token=WORD) as here:
        ended, *logs = await asyncio.to_thread(lambda: run(here, api(receiver.url()), tmp_path))
        assert not any("canary" in text for text in (repr(ended), *logs))


def test_a_secret_is_masked_however_it_is_written() -> None:
    shown = Shown([SECRET])
    forms = [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        "canary-1%20%22quoted%22%2F%5C%C3%A4",
        "canary-1+%22quoted%22%2F%5C%C3%A4",
    ]
    for form in forms:
        assert "canary" not in shown.plain(f"a {form} b")
        assert b"canary" not in shown.raw(f"a {form} b".encode())
    assert "canary" not in json.dumps(shown.value({SECRET: [SECRET, {"a": f"-{SECRET}-"}]}))
    assert Shown(["12345"]).value({"pin": 12345, "all": 9123459, "f": 0.12345, "not": True}) == {
        "pin": "***", "all": "***", "f": "***", "not": True,
    }  # fmt: skip


def test_the_log_s_lines_hold_a_body_s_beginning() -> None:
    shown = Shown(())
    assert len(shown.body(b"x" * 100_000)) == BODY_CHARS < LINE_CHARS_MAX
    assert len(shown.body(b"", {"a": "x" * 100_000})) == BODY_CHARS


async def test_a_line_break_in_an_answer_is_no_new_line_of_the_log(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.answers(status(422, "", b"first\n2026-01-01 info forged\r\nlast\x00\x1b[31m"))
    with world(LOCAL) as here:
        _, text, _ = await asyncio.to_thread(lambda: run(here, api(receiver.url()), tmp_path))
    assert "forged" in text and "\x1b" not in text
    assert not any(line.startswith("2026-01-01 info forged") for line in text.splitlines())

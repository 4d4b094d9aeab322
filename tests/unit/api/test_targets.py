"""What no path and no query may hold is refused before any route sees it, by the name of the parameter."""

import asyncio
from typing import cast

import httpx
import pytest

from services.api import app
from services.api.parts import Parts

APP = app.create(cast(Parts, None))
ID = "a" * 40


def ask(method: str, target: str) -> httpx.Response:
    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://x") as client:
            return await client.request(method, target)

    return asyncio.run(answer())


@pytest.mark.parametrize(
    ("target", "pointer"),
    [
        (f"/v1/requests/{ID}/steps/%00", "path"),
        (f"/v1/executions/{ID}/steps/a%00b/log", "name"),
        (f"/v1/executions/{ID}/steps/a%0Ab/log", "name"),
        (f"/v1/executions/{ID}/steps/%7f/log", "name"),
        (f"/v1/executions/{ID}/steps/%c2%85/log", "name"),
        (f"/v1/executions/{ID}/steps/%ed%a0%80/log", "name"),
        (f"/v1/executions/{ID}/steps/%ff/log", "name"),
        (f"/v1/executions/{ID}/steps/{'x' * 1_001}/log", "name"),
        ("/v1/datasets/%01", "id"),
        ("/v1/executions?tag=%00", "tag"),
        ("/v1/executions?tag=a&requester=%1b", "requester"),
        ("/v1/executions?cursor=%ed%bf%bf", "cursor"),
        ("/v1/me?anything=%00", "anything"),
        (f"/v1/me?anything={'x' * 1_001}", "anything"),
        ("/v1/me?%00=1", "query"),
        (f"/v1/me?{'a=1&' * 100}", "query"),
    ],
)
def test_control_characters_and_what_is_not_utf_8_are_refused_by_name(target: str, pointer: str) -> None:
    answer = ask("GET", target)
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:millstream:problem:invalid-request"
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert error["message"].isprintable()


def test_a_step_to_approve_is_refused_by_its_name() -> None:
    answer = ask("POST", f"/v1/requests/{ID}/steps/%00/approve")
    assert answer.json()["errors"][0]["pointer"] == "step"


def test_a_file_of_such_a_name_is_not_found() -> None:
    assert ask("GET", f"/files/{ID}/%00").status_code == 404

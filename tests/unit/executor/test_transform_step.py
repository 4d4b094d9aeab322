"""TRANSFORM: its result is what the manager has evaluated."""

from typing import Any

import pytest
from msgspec.structs import replace

from services.executor.steps import STEPS
from services.executor.steps.outcome import OUTPUT_BYTES_MAX, Done, Fail, Outcome
from tests.calls import api, world


def transformed(**parameters: Any) -> Outcome:
    with world() as here:
        step = replace(api("http://unused"), kind="TRANSFORM", parameters=parameters)
        return STEPS["TRANSFORM"].run(step, here.context())


@pytest.mark.parametrize("output", [None, 5, "text", [1, {"a": None}], {"a": "${secrets.token} stays"}])
def test_the_output_is_the_result(output: Any) -> None:
    assert transformed(output=output) == Done(output)


def test_a_result_has_its_limit() -> None:
    text = "x" * (OUTPUT_BYTES_MAX - 2)
    assert transformed(output=text) == Done(text)
    ended = transformed(output=text + "x")
    assert isinstance(ended, Fail)
    assert ended.reason == "output_too_large"
    assert ended.message == "output: expected at most 32768 bytes as JSON, found 32769"

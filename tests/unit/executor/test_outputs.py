"""Whatever a step returns survives every codec on its way, or ends the step with a reason."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.contracts.commands import Json, StepOutcome
from services.executor.calls import answer
from services.executor.steps.outcome import Done, Fail, lasting
from services.executor.work.partition import Place
from services.executor.work.take import Take
from services.runtime.schemas import codec
from tests.calls import api
from tests.exporting import AT, TAKE

TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["a\0b", "\ud800", "\u202e", "\uffff"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(1 << 70), max_value=1 << 70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


def sent(output: Json) -> StepOutcome:
    """The outcome as the manager reads it off the topic."""
    take = Take(api("http://receiver.example/"), TAKE, "tests", Place(0, 0), 0.0)
    record = take.outcome(lasting(Done(output)), AT)
    read = codec().decode("step.completed", codec().encode(record))
    assert isinstance(read, StepOutcome)
    return read


@given(VALUES)
@example({"n": 18446744073709551616})
@example([-(1 << 63) - 1])
@example([(1 << 64) - 1, -(1 << 63), 1e308, 5e-324, -0.0])
@example([float("nan")])
@example({"key\0": 1})
@example(nested(100))
def test_an_output_survives_or_ends_the_step(output: Any) -> None:
    read = sent(output)
    if read.outcome == "fail":
        assert read.reason == "output_unfit"
        return
    assert read.output == output
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(read.output)) == output
    assert json.loads(json.dumps(read.output, allow_nan=False)) == output
    assert "\\u0000" not in json.dumps(output)


def test_what_no_store_holds_is_named() -> None:
    outcome = lasting(Done({"n": 1 << 64}))
    assert isinstance(outcome, Fail)
    assert outcome.message == (
        "the step's output cannot be kept: expected an integer of at most 64 bits, found a larger one;"
        " write it as text"
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 18446744073709551616}',
        "[-9223372036854775809]",
        '{"a\\u0000": 1}',
        '"\\ud800"',
        "1e400",
        "1e-9999999999999999999",
        '{"total": 1231231231231234123.5}',
        "[0.1000000000000000055]",
        "[" * 100 + "]" * 100,
    ],
)
def test_json_that_not_every_reader_holds_is_the_text_of_a_completed_call(text: str) -> None:
    body = answer.read(text.encode(), "application/json")
    assert (body.form, body.value) == ("text", text)
    assert sent({"status": 200, "headers": {}, "body": body.value, "body_file": None}).outcome == "done"


@pytest.mark.parametrize(
    "text",
    ["0.1", "0.10", "0.10000000000000001", "0.1000000000000000055511151231257827021181583404541015625"],
)
def test_the_forms_that_languages_give_a_float_are_that_float(text: str) -> None:
    body = answer.read(text.encode(), "application/json")
    assert (body.form, body.value) == ("json", 0.1)


@given(VALUES)
def test_whatever_a_receiver_answers_the_call_is_completed(value: Any) -> None:
    content = json.dumps(value).encode()
    body = answer.read(content, "application/json")
    read = sent({"status": 200, "headers": {}, "body": body.value, "body_file": None})
    assert read.outcome == "done"
    assert replace(read, output=None).reason is None

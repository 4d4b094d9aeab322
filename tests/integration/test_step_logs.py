"""Step logs over HTTP: parts of the blob store become lines, whole and once, while a step runs and after."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import httpx
import pytest

from services.api import steplogs
from services.api.steplogs import Known, Tail
from services.contracts import events, ids, places
from services.contracts.events import Event
from services.runtime import blobs
from services.runtime.blobs import Blobs
from tests.serving import Api, accepted, facts
from tests.streaming import Message, messages, stream

pytestmark = pytest.mark.postgres


@pytest.fixture
def id(api: Api, id: str) -> str:
    """An execution whose step has not started."""
    api.project([accepted(id)])
    return id


def folder(id: str, attempt: int, take_id: str) -> str:
    return places.take_folder("acme", id, "noop", ids.attempt_id(id, "noop", attempt), take_id)


def put(store: Blobs, place: str, number: int, content: bytes) -> None:
    """What a worker ships, on whatever machine."""
    with store.create(places.log_part(place, number)) as writer:
        writer.write(content)
        writer.finish()


def running(id: str, sequence: int, attempt: int) -> Event:
    return events.StepRunning(
        **facts(id, sequence), step="noop", attempt=attempt, take_id=f"t{attempt}", worker=f"w{attempt}"
    )


def retried(id: str, sequence: int) -> Event:
    fields: dict[str, Any] = facts(id, sequence)
    return events.StepRetryScheduled(
        **fields, step="noop", attempt=1, reason="r", message="m", retry_at=fields["occurred_at"]
    )


def completed(id: str, sequence: int, attempt: int) -> list[Event]:
    return [
        events.StepCompleted(**facts(id, sequence), step="noop", attempt=attempt, output={}),
        events.ExecutionCompleted(**facts(id, sequence + 1), files=0, rows=0, bytes=0),
    ]


def said(answer: httpx.Response) -> Iterator[Message]:
    return (message for message in messages(answer) if message.comment is None)


def test_the_log_of_all_attempts_as_text(api: Api, client: httpx.Client, id: str) -> None:
    path = f"/v1/executions/{id}/steps/noop/log"
    assert client.get(path).text == ""
    api.project([running(id, 2, 1)])
    put(api.parts.blobs, folder(id, 1, "t1"), 1, b"one\ntw")
    assert client.get(path).text == "one\n"
    put(api.parts.blobs, folder(id, 1, "t1"), 2, b"o\ncut off")
    api.project([retried(id, 3), running(id, 4, 2)])
    put(api.parts.blobs, folder(id, 2, "t2"), 1, "drei €\n".encode())
    answer = client.get(path)
    assert answer.text == "one\ntwo\ncut offdrei €\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_tail_goes_on_until_the_step_has_ended(api: Api, client: httpx.Client, id: str) -> None:
    store, first, second = api.parts.blobs, folder(id, 1, "t1"), folder(id, 2, "t2")
    with stream(client, f"/v1/executions/{id}/steps/noop/log") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        found = said(answer)
        put(store, first, 1, b"one\ntw")
        api.project([running(id, 2, 1)])
        assert next(found) == Message("one\n", "0-4")
        put(store, first, 2, b"o\nthree\n")
        assert next(found) == Message("two\nthree\n", "0-14")
        put(store, second, 1, b"again\n")
        api.project([retried(id, 3), running(id, 4, 2)])
        assert next(found) == Message("again\n", "1-6")
        put(store, second, 2, b"done\n")
        api.project(completed(id, 5, 2))
        assert [*found] == [Message("done\n", "1-11"), Message("", "end", "end")]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, ["one\ntwo\n", "three\n"]),
        ("0-0", ["one\ntwo\n", "three\n"]),
        ("0-4", ["two\n", "three\n"]),
        ("0-8", ["three\n"]),
        ("1-6", []),
    ],
)
def test_a_tail_goes_on_where_it_was_cut_off(
    api: Api, client: httpx.Client, id: str, last: str | None, expected: list[str]
) -> None:
    put(api.parts.blobs, folder(id, 1, "t1"), 1, b"one\nt")
    put(api.parts.blobs, folder(id, 1, "t1"), 2, b"wo\n")
    put(api.parts.blobs, folder(id, 2, "t2"), 1, b"three\n")
    api.project([running(id, 2, 1), retried(id, 3), running(id, 4, 2), *completed(id, 5, 2)])
    with stream(client, f"/v1/executions/{id}/steps/noop/log", last) as answer:
        found = [*said(answer)]
    assert [message.data for message in found[:-1]] == expected
    assert found[-1].event == "end"
    with stream(client, f"/v1/executions/{id}/steps/noop/log", found[-1].id) as answer:
        assert answer.status_code == 204


def test_a_long_log_comes_whole(api: Api, client: httpx.Client, id: str) -> None:
    text = "".join(f"line {n} {'x' * 90}\n" for n in range(30_000)).encode()
    assert len(text) > 2 * steplogs.AT_ONCE_BYTES
    parts = [text[at : at + 65_536] for at in range(0, len(text), 65_536)]
    for number, part in enumerate(parts, 1):
        put(api.parts.blobs, folder(id, 1, "t1"), number, part)
    api.project([running(id, 2, 1), *completed(id, 3, 1)])
    path = f"/v1/executions/{id}/steps/noop/log"
    assert client.get(path).content == text
    with stream(client, path) as answer:
        found = [*said(answer)]
    assert "".join(message.data for message in found).encode() == text
    cut = found[0].id
    with stream(client, path, cut) as answer:
        assert "".join(message.data for message in said(answer)).encode() == text[len(found[0].data) :]


def test_a_tail_may_begin_before_the_steps_are_known(api: Api, client: httpx.Client) -> None:
    id = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    with (
        stream(client, f"/v1/executions/{id}/steps/noop/log") as answer,
        stream(client, f"/v1/executions/{id}/steps/other/log") as other,
    ):
        assert (answer.status_code, other.status_code) == (200, 200)
        put(api.parts.blobs, folder(id, 1, "t1"), 1, b"one\n")
        api.project([accepted(id), running(id, 2, 1), *completed(id, 3, 1)])
        assert [message.data for message in said(answer)] == ["one\n", ""]
        assert [*said(other)] == []


def test_a_line_without_an_end_does_not_block() -> None:
    store, place = blobs.in_memory(), folder("a" * 40, 1, "t")
    put(store, place, 1, b"x" * (steplogs.AT_ONCE_BYTES + 5))
    (piece,) = Tail(store).read(Known((place,), False))
    assert piece.position == f"0-{steplogs.AT_ONCE_BYTES + 5}"


def test_nothing_but_the_takes_of_the_history_is_shown(api: Api, client: httpx.Client, id: str) -> None:
    put(api.parts.blobs, folder(id, 1, "t1"), 1, b"ours\n")
    put(api.parts.blobs, folder(id, 1, "twin"), 1, b"of a twin that lost\n")
    api.project([running(id, 2, 1), *completed(id, 3, 1)])
    assert client.get(f"/v1/executions/{id}/steps/noop/log").text == "ours\n"


def test_what_does_not_exist(api: Api, client: httpx.Client, id: str) -> None:
    for path in (f"{id}/steps/other/log", f"{'0' * 40}/steps/noop/log", "x/steps/noop/log"):
        for accept in ("*/*", "text/event-stream"):
            assert client.get(f"/v1/executions/{path}", headers={"Accept": accept}).status_code == 404
    with api.client(api.key(tenant="other")) as other:
        assert other.get(f"/v1/executions/{id}/steps/noop/log").status_code == 404


@pytest.mark.parametrize("last", ["x", "1", "0-", "-1-0", "0-0-0", "9999999-0", "End", "0-9", "end"])
def test_a_wrong_position_is_named(client: httpx.Client, id: str, last: str) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    answer = client.get(f"/v1/executions/{id}/steps/noop/log", headers=headers)
    assert (answer.status_code, json.loads(answer.content)["errors"][0]["pointer"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_lines_do_not_depend_on_the_parts(size: int) -> None:
    """A part may end within a line, and within a character."""
    store, text = blobs.in_memory(), "ä\n€uro\n\nlast\n".encode()
    tail, shown = Tail(store), ""
    place = folder("a" * 40, 1, "t")
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    read: Callable[[bool], str] = lambda over: "".join(  # noqa: E731
        piece.text for piece in tail.read(Known((place,), over))
    )
    for number, part in enumerate(parts, 1):
        put(store, place, number, part)
        new = read(False)
        assert new == "" or new.endswith("\n")
        shown += new
    assert (shown + read(True)).encode() == text
    assert not [*islice(tail.read(Known((place,), True)), 1)]

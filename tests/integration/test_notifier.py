"""Deliveries on a real database, to a real receiver that behaves well and badly."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from standardwebhooks import Webhook

from services.contracts import public
from services.contracts.commands import Callback
from services.contracts.events import ExecutionCompleted
from services.notifier.core.schedule import DELAYS_S, JITTER
from services.notifier.dispatcher import Dispatcher, Limits
from services.notifier.matcher import CHANNEL
from services.notifier.sender import Sender
from services.notifier.store import Store
from services.runtime import entropy, sealing, wakeups
from services.runtime.http import KEPT_BYTES, Client
from tests.integration.owed import SEALER, SECRET, TOKEN, Database, callback, deliveries, facts
from tests.receiver import BOMB, Answer, Receiver, drip, echo, flood, hang, receiving, reset, status
from tests.waiting import until_async

pytestmark = pytest.mark.postgres

WAIT_S = 20


@asynccontextmanager
async def dispatching(
    database: Database,
    *,
    allow: tuple[str, ...] = ("127.0.0.0/8",),
    timeout_s: float = 15,
    limits: Limits | None = None,
    sealer: sealing.Sealer = SEALER,
) -> AsyncIterator[Dispatcher]:
    """A dispatcher as __main__ puts it together."""
    client = Client([ip_network(text) for text in allow], "Millstream/test", timeout_s)
    dispatcher = Dispatcher(Store(database.url), Sender(client, sealer), limits)
    listening = asyncio.create_task(
        wakeups.listen(database.url, CHANNEL, "tests", lambda _: dispatcher.wake())
    )
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        await running
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await client.close()


async def until(fact: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    async def ask() -> bool:
        return bool(fact())

    await until_async(ask, timeout_s, what)


# ---------------------------------------------------------------- what is sent


async def test_a_delivery_is_a_standard_webhook_with_a_cloud_event(
    database: Database, receiver: Receiver
) -> None:
    [owed] = deliveries(callback(receiver.url("/hook?a=%20b")))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: database.count("delivered"), "the delivery")
    [call] = receiver.calls
    assert (call.method, call.target, call.body) == ("POST", "/hook?a=%20b", owed.body)
    assert Webhook(SECRET).verify(call.body, dict(call.headers))["data"]["files"] == 1
    assert json.loads(call.body)["id"] == owed.event_id
    assert call.headers["webhook-id"] == owed.delivery_id
    assert call.headers["content-type"] == "application/cloudevents+json"
    assert call.headers["user-agent"] == "Millstream/test"
    assert call.headers["authorization"] == TOKEN
    row = database.row(owed)
    assert (row["attempts"], row["last_status"], row["last_error"]) == (1, 204, None)
    assert row["finished_at"] >= row["created_at"]
    [attempt] = database.attempts(owed)
    assert (attempt["attempt"], attempt["status"], attempt["error"]) == (1, 204, None)


async def test_the_body_is_that_of_the_contract(database: Database, receiver: Receiver) -> None:
    execution = entropy.fresh_id()
    async with dispatching(database):
        database.insert(*deliveries(callback(receiver.url()), execution=execution))
        await until(lambda: receiver.calls, "the call")
    event = ExecutionCompleted(**facts(execution, 2), files=1, rows=2, bytes=3)
    assert json.loads(receiver.calls[0].body) == public.cloud_event(event)


async def test_without_a_secret_there_is_no_signature(database: Database, receiver: Receiver) -> None:
    [owed] = deliveries(Callback(events=(), url=receiver.url(), method="PUT"))[:1]
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: database.count("delivered"), "the delivery")
    [call] = receiver.calls
    assert call.method == "PUT"
    assert "webhook-signature" not in call.headers
    assert call.headers["webhook-id"] == owed.delivery_id


async def test_a_retry_has_the_same_id_and_body_and_a_new_timestamp(
    database: Database, receiver: Receiver
) -> None:
    receiver.script["/hook"] = [status(500, body=b"down"), status(503), status(200)]
    [owed] = deliveries(callback(receiver.url()))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: len(receiver.calls) == 2, "the first retry, by itself")
        await until(lambda: database.row(owed)["attempts"] == 2, "the record of the second attempt")
        database.due_now()
        await until(lambda: database.count("delivered"), "the delivery")
    first, second, third = receiver.calls
    assert DELAYS_S[0] * (1 - JITTER) <= second.at - first.at <= DELAYS_S[0] * (1 + JITTER) + 2
    assert {call.body for call in receiver.calls} == {owed.body}
    assert {call.headers["webhook-id"] for call in receiver.calls} == {owed.delivery_id}
    stamps = [int(call.headers["webhook-timestamp"]) for call in receiver.calls]
    assert stamps[0] < stamps[1] <= stamps[2]
    for call in (first, second, third):
        Webhook(SECRET).verify(call.body, dict(call.headers))
    found = [(attempt["status"], attempt["response"]) for attempt in database.attempts(owed)]
    assert found == [(500, "down"), (503, ""), (200, "")]


async def test_an_idle_dispatcher_is_woken_by_the_insert(database: Database, receiver: Receiver) -> None:
    async with dispatching(database) as dispatcher:
        await until(lambda: dispatcher.ready()[0], "the first turn")
        for _ in range(3):
            before = len(receiver.calls)
            database.insert(*deliveries(callback(receiver.url())))
            await until(lambda: len(receiver.calls) > before, "the call", timeout_s=1)  # noqa: B023 awaited here


# ---------------------------------------------------------------- bad receivers


@pytest.mark.parametrize(
    ("answer", "state", "code", "words", "response"),
    [
        (status(302, "Location: /elsewhere\r\n"), "pending", 302, "answered 302", ""),
        (status(410), "dead", 410, "gone", ""),
        (status(404, body=b"no such\0hook"), "pending", 404, "answered 404", "no such�hook"),
        (reset, "pending", None, "closed the connection", None),
        (hang, "pending", None, "no answer within 0.5 s", None),
        (flood, "delivered", 200, None, "x" * KEPT_BYTES),
        (drip, "delivered", 200, None, "slow"),
        (BOMB, "delivered", 200, None, "(compressed as 'gzip', not kept)"),
    ],
    ids=["redirect", "gone", "missing", "reset", "hang", "flood", "drip", "bomb"],
)
async def test_what_a_bad_answer_leads_to(
    database: Database,
    receiver: Receiver,
    answer: Answer,
    state: str,
    code: int | None,
    words: str | None,
    response: str | None,
) -> None:
    receiver.script["/hook"] = [answer]
    [owed] = deliveries(callback(receiver.url()))
    async with dispatching(database, timeout_s=0.5):
        database.insert(owed)
        await until(lambda: database.attempts(owed), "the first attempt")
    row, [attempt, *_] = database.row(owed), database.attempts(owed)
    assert (row["state"], row["last_status"], attempt["response"]) == (state, code, response)
    assert (words or "") in (row["last_error"] or "")
    assert (row["finished_at"] is None) == (state == "pending")
    assert receiver.at("/elsewhere") == []


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_obeyed(database: Database, receiver: Receiver, form: str) -> None:
    asked = entropy.LocalClock().now() + timedelta(hours=1)
    value = "3600" if form == "seconds" else asked.strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.script["/hook"] = [status(429, f"Retry-After: {value}\r\n")]
    [owed] = deliveries(callback(receiver.url()))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: database.attempts(owed), "the first attempt")
    due = database.row(owed)["next_attempt_at"]
    assert asked - timedelta(seconds=5) <= due <= asked + timedelta(hours=JITTER, seconds=30)


async def test_a_closed_port_is_tried_again(database: Database) -> None:
    async with receiving() as gone:
        url = gone.url()
    [owed] = deliveries(callback(url))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: database.attempts(owed), "the first attempt")
    assert database.row(owed)["last_error"] == "connection refused"
    assert database.row(owed)["state"] == "pending"


async def test_receivers_that_hang_do_not_delay_the_others(database: Database, receiver: Receiver) -> None:
    """Far more hanging deliveries than there are slots, all due before the good ones."""
    async with receiving() as one, receiving() as two, receiving() as three:
        for bad in (one, two, three):
            bad.script["/hook"] = [hang]
            database.insert(*(deliveries(callback(bad.url()))[0] for _ in range(100)))
        limits = Limits(total=60, destination=8, failing=2)
        async with dispatching(database, timeout_s=4, limits=limits):
            await until(lambda: min(len(bad.calls) for bad in (one, two, three)) == 8, "hanging calls")
            good = [deliveries(callback(receiver.url()))[0] for _ in range(50)]
            database.insert(*good)
            await until(lambda: database.count("delivered") == 50, "the good ones", timeout_s=3)
            assert {len(bad.calls) for bad in (one, two, three)} == {8}
            await until(
                lambda: database.query("SELECT FROM notifier.attempt WHERE error LIKE 'no ans%%'"),
                "a time-out",
            )
            assert database.count("delivered") == 50
    assert len(receiver.calls) == 50


async def test_one_tenants_hanging_receivers_leave_slots_to_the_others(
    database: Database, receiver: Receiver
) -> None:
    """More destinations that hang than there are slots, all due before the other tenant's callback."""
    async with AsyncExitStack() as stack:
        hanging = [await stack.enter_async_context(receiving()) for _ in range(30)]
        for bad in hanging:
            bad.otherwise = hang
            owed = [deliveries(callback(bad.url(), tenant="mallory"), tenant="mallory")[0] for _ in range(4)]
            database.insert(*owed)
        async with dispatching(database, timeout_s=8, limits=Limits(total=20, destination=8)):
            await until(lambda: sum(len(bad.calls) for bad in hanging) == 10, "half of the slots to hang")
            for tenant, target in (("acme", "/hook"), ("zeta", "/other")):
                database.insert(*deliveries(callback(receiver.url(target), tenant=tenant), tenant=tenant))
            await until(lambda: database.count("delivered") == 2, "the other tenants' callbacks")
            assert sum(len(bad.calls) for bad in hanging) == 10
            assert database.query("SELECT FROM notifier.attempt WHERE status IS NULL") == []


async def test_a_failing_destination_is_given_fewer_slots(database: Database, receiver: Receiver) -> None:
    receiver.script["/hook"] = [status(500), hang]
    async with dispatching(database, timeout_s=2, limits=Limits(total=40, destination=8, failing=2)):
        database.insert(*deliveries(callback(receiver.url())))
        await until(lambda: database.query("SELECT FROM notifier.attempt"), "the first failure")
        database.insert(*(deliveries(callback(receiver.url()))[0] for _ in range(20)))
        await until(lambda: len(receiver.calls) == 3, "two more calls")
        await until(
            lambda: database.query("SELECT FROM notifier.attempt WHERE error LIKE 'no ans%%'"), "a time-out"
        )
        assert len(receiver.calls) <= 3 + 2


# ---------------------------------------------------------------- what must not be sent


async def test_a_private_address_is_refused_and_not_shown(database: Database, receiver: Receiver) -> None:
    [owed] = deliveries(callback(f"http://localhost:{receiver.port}/"))
    async with dispatching(database, allow=()):
        database.insert(owed)
        await until(lambda: database.attempts(owed), "the first attempt")
    row = database.row(owed)
    assert (row["state"], receiver.calls) == ("dead", [])  # no later attempt is allowed either
    assert "MILLSTREAM_OUTBOUND__ALLOW" in row["last_error"]
    assert "127." not in row["last_error"]


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({"url": "http://a:b@c/"}, "dead", "url: expected no user or password"),
        ({"url": "file:///etc/passwd"}, "dead", "url: expected an absolute URL"),
        ({"method": "DELETE"}, "dead", "method: expected one of POST, PUT"),
        (
            {"headers": {"Authorization": "plain canary"}},
            "dead",
            "callback.headers.authorization: expected a text",
        ),
        (
            {"headers": {"Host": SEALER.seal("x", "acme", "callback.headers.host")}},
            "dead",
            "set by Millstream",
        ),
        (
            {"headers": {"X-A": SEALER.seal("1\r\nX-B: canary", "acme", "callback.headers.x-a")}},
            "dead",
            "line breaks",
        ),
        ({"secret": SEALER.seal(SECRET, "other", sealing.CALLBACK_SECRET)}, "dead", "another tenant"),
        (
            {"secret": SEALER.seal("whsec_canary!", "acme", sealing.CALLBACK_SECRET)},
            "dead",
            "secret: expected",
        ),
        (
            {"secret": sealing.Sealer({"k2": b"2" * 32}).seal(SECRET, "acme", sealing.CALLBACK_SECRET)},
            "pending",
            "MILLSTREAM_SEALING__KEYS",
        ),
    ],
)
async def test_a_delivery_that_cannot_be_a_request_is_not_sent(
    database: Database, receiver: Receiver, change: dict[str, Any], state: str, words: str
) -> None:
    good = callback(receiver.url())
    values = {name: getattr(good, name) for name in ("events", "url", "method", "headers", "secret")}
    [owed] = deliveries(Callback(**{**values, **change}))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: database.attempts(owed), "the attempt")
    row = database.row(owed)
    assert (row["state"], receiver.calls) == (state, [])
    assert words in row["last_error"]
    assert "canary" not in row["last_error"]


async def test_secrets_are_in_no_table_and_no_log(
    database: Database, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver.script["/hook"] = [echo]
    [owed] = deliveries(callback(receiver.url("/hook")))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: database.attempts(owed), "the first attempt")
    assert receiver.calls[0].headers["authorization"] == TOKEN
    tables = database.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'notifier'::regnamespace"
    )
    assert {"delivery", "attempt", "state"} <= {table["relname"] for table in tables}
    texts = [
        row["text"]
        for table in tables
        for row in database.query(f"SELECT t::text AS text FROM notifier.{table['relname']} AS t")
    ]
    out, err = capfd.readouterr()
    assert "***" in str(database.attempts(owed)[0]["response"])
    assert "delivery_retry" in out
    for text in (*texts, out, err):
        for secret in (TOKEN, TOKEN.split()[1], SECRET, SECRET.removeprefix("whsec_"), "/hook"):
            assert secret not in text or (secret == "/hook" and text in texts)


# ---------------------------------------------------------------- durability


async def test_the_same_delivery_inserted_again_is_one(database: Database, receiver: Receiver) -> None:
    [owed] = deliveries(callback(receiver.url()))
    async with dispatching(database):
        database.insert(owed, owed)
        await until(lambda: database.count("delivered"), "the delivery")
        database.insert(owed)
        [other] = deliveries(callback(receiver.url("/other")))
        database.insert(other)
        await until(lambda: database.count("delivered") == 2, "the other delivery")
    assert [call.headers["webhook-id"] for call in receiver.calls] == [owed.delivery_id, other.delivery_id]


async def test_two_dispatchers_send_each_delivery_once(database: Database, receiver: Receiver) -> None:
    owed = [deliveries(callback(receiver.url(f"/{number % 7}")))[0] for number in range(300)]
    async with dispatching(database), dispatching(database):
        for start in range(0, 300, 30):
            database.insert(*owed[start : start + 30])
        await until(lambda: database.count("delivered") == 300, "all of them")
    sent = sorted(call.headers["webhook-id"] for call in receiver.calls)
    assert sent == sorted(one.delivery_id for one in owed)


async def test_a_stop_lets_the_attempt_in_flight_end(database: Database, receiver: Receiver) -> None:
    release = asyncio.Event()

    async def slow(call: Any, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await status(200)(call, writer)

    receiver.script["/hook"] = [slow]
    [owed], [later] = deliveries(callback(receiver.url())), deliveries(callback(receiver.url("/later")))
    async with dispatching(database) as dispatcher:
        database.insert(owed)
        await until(lambda: receiver.calls, "the call")
        dispatcher.stop()
        database.insert(later)
        release.set()
    assert database.row(owed)["state"] == "delivered"
    assert database.row(later)["state"] == "pending"
    assert receiver.at("/later") == []


async def test_a_result_whose_lease_is_over_changes_nothing(database: Database, receiver: Receiver) -> None:
    """A dispatcher that stood still for longer than its lease: another one has the delivery now."""
    release = asyncio.Event()

    async def stuck(call: Any, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await status(500)(call, writer)

    receiver.script["/hook"] = [stuck, status(200)]
    [owed] = deliveries(callback(receiver.url()))
    async with dispatching(database):
        database.insert(owed)
        await until(lambda: receiver.calls, "the first call")
        database.due_now()
        await until(lambda: database.count("delivered"), "the second dispatcher's delivery")
        release.set()
    row = database.row(owed)
    assert (row["state"], row["attempts"], row["last_status"]) == ("delivered", 1, 200)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1

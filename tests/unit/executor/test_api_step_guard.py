"""Where an API step never goes: all addresses, names, spellings and tricks of the list, through the step."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_address, ip_network

import pytest
import pytest_asyncio

from services.contracts import ids
from services.executor.calls.outbound import Caller, Outbound
from services.executor.steps.outcome import Fail
from services.runtime.http import Resolve
from tests.calls import LOCAL, api, failed, outcome, world
from tests.exporting import EXECUTION, World
from tests.forbidden import BLOCKED, NAMES, SPELLINGS, URLS
from tests.receiver import Receiver, receiving, status


async def table(host: str, _port: int) -> Sequence[str]:
    return NAMES[host]


def surrounded(*allow: str, resolve: Resolve = table) -> World:
    caller = Caller([ip_network(one) for one in allow], "Millstream/test", resolve)
    return World({}, outbound=Outbound(caller, {}))


@pytest.fixture(scope="module")
def strict() -> Iterator[World]:
    """Without exceptions, and with a name server of ours."""
    strict = surrounded()
    yield strict
    strict.outbound.caller.close()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.answers(status(200))
        yield receiver


def spelled(address: str) -> set[str]:
    """What would give the address away; the shortest forms mean nothing."""
    return {form for form in (address, ip_address(address).exploded) if len(form) > 4}


@pytest.mark.parametrize("address", BLOCKED)
async def test_a_blocked_literal_is_refused(strict: World, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    failure = await failed(strict, api(f"http://{host}:9/"))
    assert failure.reason == "address_refused"
    assert "MILLSTREAM_OUTBOUND__ALLOW" in failure.message
    assert not any(form in failure.message for form in spelled(address))


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_with_a_blocked_address_is_refused(strict: World, name: str) -> None:
    failure = await failed(strict, api(f"http://{name}:9/"))
    assert failure.reason == "address_refused"
    assert not any(form in failure.message for address in NAMES[name] for form in spelled(address))


@pytest.mark.parametrize("host", SPELLINGS)
async def test_an_odd_spelling_of_an_address_is_refused(strict: World, host: str) -> None:
    assert (await failed(strict, api(f"http://{host}:9/"))).reason in ("bad_url", "address_refused")


@pytest.mark.parametrize("url", URLS)
async def test_a_url_of_another_form_is_refused(strict: World, url: str) -> None:
    failure = await failed(strict, api(url))
    assert failure.reason == "bad_url"
    assert "secret" not in failure.message


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Receiver, code: int) -> None:
    receiver.answers(status(code, f"Location: {receiver.url('/elsewhere')}\r\n"))
    with world(LOCAL) as here:
        failure = await failed(here, api(receiver.url()))
    assert failure.reason == f"http_{code}"
    assert "redirects are not followed" in failure.message
    assert receiver.at("/elsewhere") == []


async def test_rebinding(receiver: Receiver) -> None:
    """The second answer of the name server would be a blocked address: it refuses the second call alone."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    receiver.answers(status(500, "Connection: close\r\n"))
    here = surrounded(LOCAL, resolve=resolve)
    url = f"http://receiver.example:{receiver.port}/hook"
    try:
        await outcome(here, api(url))
        assert asked == ["receiver.example"]
        assert receiver.calls[0].headers["host"] == f"receiver.example:{receiver.port}"
        assert (await failed(here, api(url))).reason == "address_refused"
    finally:
        await asyncio.to_thread(here.outbound.caller.close)
    assert len(receiver.calls) == 1


async def test_a_host_header_cannot_lead_elsewhere(receiver: Receiver) -> None:
    with world(LOCAL) as here:
        failure = await failed(here, api(receiver.url(), headers={"Host": "metadata.internal"}))
    assert failure.reason == "bad_parameters"


async def test_proxies_of_the_environment_are_ignored(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with world(LOCAL) as here:
        assert not isinstance(await outcome(here, api(receiver.url())), Fail)
    assert receiver.calls[0].headers["idempotency-key"] == ids.step_key(EXECUTION, "call", 1)


async def test_an_operator_s_exception_is_one_network(receiver: Receiver) -> None:
    with world("10.0.0.0/8", "::1/128") as here:
        assert (await failed(here, api(receiver.url()))).reason == "address_refused"
    with world("127.0.0.1/32") as here:
        assert not isinstance(await outcome(here, api(receiver.url())), Fail)
        assert (await failed(here, api("http://127.0.0.2:9/"))).reason == "address_refused"
        assert (await failed(here, api("http://10.0.0.1:9/"))).reason == "address_refused"

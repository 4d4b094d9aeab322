"""The parts of the soak: what is asked of a running stack, each bounded in number and in time."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from services.cli.sample import DATASET, DATASET_ID
from tests.waiting import until_async

SENDERS = 16
READERS = 8
WIDE_STEPS = 100
RETRIED = {429, 503}
CALL_S = 60
PAUSE_S = 0.2
ENDED = ("completed", "failed", "cancelled", "rejected")


@dataclass(frozen=True, slots=True)
class Client:
    """One session with the key of the stack; `deadline` is monotonic."""

    http: aiohttp.ClientSession
    url: str
    deadline: float

    def late(self) -> bool:
        """Whether the time of the part is over."""
        return time.monotonic() > self.deadline

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """The answer as JSON, after as many 429 and 503 as there are until the deadline."""
        while True:
            async with self.http.request(method, self.url + path, **more) as answer:
                if answer.status not in RETRIED or self.late():
                    assert answer.ok, f"{method} {path}: {answer.status}: {await answer.text()}"
                    return await answer.json()
            await _soon()

    async def open(self) -> int:
        """How many executions have not ended; counts up to one page."""
        counts = [
            len((await self.call("GET", f"/v1/executions?status={status}&limit=200"))["items"])
            for status in ("pending", "running", "waiting")
        ]
        return sum(counts)


Part = Callable[[Client], Awaitable[str]]


async def prepare(client: Client) -> str:
    """A dataset and three pipelines."""
    await client.call("PUT", f"/v1/datasets/{DATASET_ID}", json=DATASET)
    noop = {"step_type": "NOOP"}
    add = {"step_name": "add", "step_type": "TRANSFORM", "parameters": {"output": {"n": "$(number('2'))"}}}
    bodies: dict[str, Any] = {
        "soak-three": [{"step_name": f"s{number}", **noop} for number in range(3)],
        "soak-add": [add],
        "soak-wide": [{"step_name": f"s{number}", **noop} for number in range(WIDE_STEPS)],
    }
    for id, steps in bodies.items():
        await client.call("PUT", f"/v1/pipelines/{id}", json={"steps": steps})
    return f"{len(bodies)} pipelines"


def _mixed(number: int) -> tuple[str, dict[str, Any]]:
    """Of a hundred: 79 noops, 15 pipelines of three steps, 5 of a computation, 1 export."""
    place = number % 100
    if place == 0:
        return "/v1/executions", {
            "jobType": "export",
            "dataset": DATASET_ID,
            "params": {"batches": ["north"]},
        }
    if place < 16:
        return "/v1/requests", {"pipeline": "soak-three", "values": {}}
    if place < 21:
        return "/v1/requests", {"pipeline": "soak-add", "values": {}}
    return "/v1/executions", {"jobType": "noop"}


async def executions(client: Client, count: int) -> str:
    """Submit so many, as fast as they are taken, until all have ended."""
    return await _asked(client, count, _mixed)


async def wide(client: Client, count: int) -> str:
    """Submit so many pipelines of many steps, until all have ended."""
    return await _asked(client, count, lambda _: ("/v1/requests", {"pipeline": "soak-wide", "values": {}}))


async def _asked(client: Client, count: int, request: Callable[[int], tuple[str, dict[str, Any]]]) -> str:
    began = time.monotonic()

    async def submit(number: int) -> None:
        path, body = request(number)
        await client.call("POST", path, json=body)

    done = await _spread(client, count, SENDERS, submit)
    sent_s = time.monotonic() - began
    left = await client.open()
    with suppress(AssertionError):
        rest_s = max(client.deadline - time.monotonic(), 1)

        async def ended() -> bool:
            return not await client.open()

        await until_async(ended, rest_s, "every execution to end")
        left = 0
    took_s = time.monotonic() - began
    tail = f", {left} or more have not ended" if left else ""
    return f"{done:,} of {count:,} asked for in {sent_s:.0f} s, over after {took_s:.0f} s{tail}"


async def downloads(client: Client, count: int) -> str:
    """Download one file so many times, each tenth aborted after its first bytes."""
    accepted = await client.call("POST", "/v1/executions", json={"jobType": "export", "dataset": DATASET_ID})
    path = f"/v1/executions/{accepted['execution_id']}"

    async def published() -> Any:
        return view if (view := await client.call("GET", path))["status"] in ENDED else None

    view = await until_async(published, 120, "the export to end")
    assert view["status"] == "completed", view["failure"]
    file = max(view["files"], key=lambda one: one["bytes"])
    came: Counter[str] = Counter()

    async def download(number: int) -> None:
        while not client.late():
            async with client.http.get(file["url"]) as answer:
                if answer.status in RETRIED:
                    await _soon()
                    continue
                answer.raise_for_status()
                if number % 10 == 0:
                    await answer.content.readany()
                    answer.close()
                    came["aborted"] += 1
                else:
                    assert len(await answer.read()) == file["bytes"]
                    came["whole"] += 1
                return

    began = time.monotonic()
    await _spread(client, count, READERS, download)
    sizes = f"{came['whole']:,} whole and {came['aborted']:,} aborted of {file['bytes']:,} bytes"
    return f"{sizes} in {time.monotonic() - began:.0f} s"


async def connections(client: Client, count: int) -> str:
    """Open so many connections that say nothing, from many addresses, and wait until the api ends them."""
    host, _, port = client.url.removeprefix("http://").rpartition(":")
    opened = []
    for number in range(count):
        address = (f"127.0.0.{2 + number % 100}", 0)
        with suppress(OSError):
            opened.append(await asyncio.open_connection(host, int(port), local_addr=address))
    began = time.monotonic()

    async def ended() -> bool:
        return all(reader.at_eof() for reader, _ in opened)

    with suppress(AssertionError):
        await until_async(ended, max(1, min(60, client.deadline - time.monotonic())), "their end")
    left = sum(not reader.at_eof() for reader, _ in opened)
    waited_s = time.monotonic() - began
    for _, writer in opened:
        writer.close()
    return f"{len(opened):,} of {count:,} opened, {left:,} still open after {waited_s:.0f} s"


async def _spread(client: Client, count: int, workers: int, do: Callable[[int], Awaitable[None]]) -> int:
    """Do it for each number, by so many at once, until the deadline; how many were done."""
    numbers, done = iter(range(count)), 0

    async def work() -> None:
        nonlocal done
        for number in numbers:
            if client.late():
                return
            await do(number)
            done += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return done


async def _soon() -> None:
    """A moment later: there is too much of something."""
    moment = asyncio.get_running_loop().time() + PAUSE_S

    async def over() -> bool:
        return asyncio.get_running_loop().time() >= moment

    await until_async(over, 5, "a moment")


async def run(url: str, key: str, seconds: float, do: Part) -> str:
    """Do it with a client that gives up after so many seconds."""
    timeout = aiohttp.ClientTimeout(total=CALL_S)
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector) as http:
        return await do(Client(http, url, time.monotonic() + seconds))

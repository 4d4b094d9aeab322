"""Two people decide one approval at once, through two api processes: one wins, the other hears 409."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.cli.dev.child import readiness
from services.cli.dev.folder import free_port
from services.contracts.events import ApprovalDecided, CommandRefused, StepWaiting
from services.runtime import entropy
from tests import waiting
from tests.faults.harness.topic import Stories, Story
from tests.requesting import Requests, new_key

PIPELINE = "races"
STEP = "Ask"
AT_ONCE = 8
PARKED_TIMEOUT_S = 300.0
ANSWERED_TIMEOUT_S = 60.0
ENDS = {"approved": "execution.completed", "rejected": "execution.failed"}
BODIES: Mapping[str, Any] = {"approve": {}, "reject": {"reason": "not like this"}}


@dataclass(frozen=True, slots=True)
class Word:
    """What one of the two said by which process, and what they heard at last; `late` counts answers 202."""

    principal: str
    decision: str
    code: int
    detail: str
    late: int


@dataclass(frozen=True, slots=True)
class Decider:
    """A person at an api process."""

    principal: str
    client: httpx.AsyncClient

    async def say(self, id: str, decision: str) -> Word:
        """Decide; who hears 202 asks again by the same key until there is an answer."""
        path = f"/v1/requests/{id}/steps/{STEP}/{decision}"
        headers = {"Idempotency-Key": f"{id}-{decision}"}
        late = -1
        answer: httpx.Response | None = None

        async def answered() -> bool:
            nonlocal answer, late
            answer = await self.client.post(path, json=BODIES[decision], headers=headers)
            late += 1
            return answer.status_code != 202

        await waiting.until_async(answered, ANSWERED_TIMEOUT_S, f"an answer to {decision} of {id}")
        assert answer is not None
        return Word(self.principal, decision, answer.status_code, answer.text, late)


def run(state: Mapping[str, Any], other_url: str, count: int, seed: int) -> tuple[list[str], Counter[str]]:
    """So many races between `state`'s api and another: what went wrong, and who decided what how often."""
    urls = (state["api_url"], other_url)
    tenant = f"races-{entropy.token(3).hex()}"
    people = {name: new_key(state["database_url"], name, tenant) for name in ("alice", "bob", "carol")}
    alice = Requests.of(urls[0], people["alice"])
    with closing(alice.client):
        asked = _asked(alice, count)
    with Stories(state["kafka_bootstrap"]) as stories:

        def parked() -> bool:
            stories.read_on()
            return all(id in stories.by_id and _parked(stories.by_id[id]) for id in asked)

        waiting.until(parked, PARKED_TIMEOUT_S, f"{count} requests to wait for their approval")
        words = asyncio.run(_decided(urls, people, asked, random.Random(seed)))

        def ended() -> bool:
            stories.read_on()
            return all(stories.by_id[id].end for id in asked)

        waiting.until(ended, ANSWERED_TIMEOUT_S, "every decided request to end")
        faults = [fault for id in asked for fault in _faults(id, words[id], stories.by_id[id])]
    return faults, _counted(words.values())


@contextmanager
def second_api(state: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The address of another api process, with the settings of the first."""
    taken: set[int] = set()
    port, health_port = free_port(0, taken), free_port(0, taken)
    ports = {"MILLSTREAM_API__PORT": str(port), "MILLSTREAM_HEALTH__PORT": str(health_port)}
    environ = {**psutil.Process(state["pids"]["api"]).environ(), **ports}
    url = f"http://127.0.0.1:{port}"
    with (folder / "second-api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.api"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        waiting.until(lambda: _is_ready(process, health_port), 60, "the second api to be ready")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "the second api has ended"
    return readiness(port) is None


def _asked(alice: Requests, count: int) -> list[str]:
    alice.put(PIPELINE, [{"step_name": STEP, "step_type": "WAIT_FOR_APPROVAL"}])
    return [alice.make(PIPELINE) for _ in range(count)]


def _parked(story: Story) -> bool:
    return any(isinstance(event, StepWaiting) for event in story.events)


async def _decided(
    urls: tuple[str, str], people: Mapping[str, str], asked: list[str], rng: random.Random
) -> dict[str, tuple[Word, Word]]:
    """Each by both, at once; now one agrees and now the other, now they agree with each other."""
    free = asyncio.Semaphore(AT_ONCE)
    async with _client(urls[0], people["bob"]) as first, _client(urls[1], people["carol"]) as second:
        pair = (Decider("bob", first), Decider("carol", second))

        async def race(id: str, decisions: tuple[str, str]) -> tuple[Word, Word]:
            async with free:
                bob, carol = await asyncio.gather(
                    *(one.say(id, word) for one, word in zip(pair, decisions, strict=True))
                )
                return bob, carol

        chosen = [(rng.choice([*BODIES]), rng.choice([*BODIES])) for _ in asked]
        told = await asyncio.gather(*map(race, asked, chosen))
    return dict(zip(asked, told, strict=True))


def _client(url: str, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False)


def _faults(id: str, words: tuple[Word, Word], story: Story) -> list[str]:
    """One heard 200, the other 409 `already_decided`; the log has one decision, the winner's, and the end."""
    faults = [*story.faults]
    decided = [event for event in story.events if isinstance(event, ApprovalDecided)]
    refused = [event for event in story.events if isinstance(event, CommandRefused)]
    won = [word for word in words if word.code == 200]
    lost = [word for word in words if word.code == 409 and "already_decided" in word.detail]
    if (len(won), len(lost)) != (1, 1):
        return [*faults, f"{id}: expected one 200 and one 409 already_decided, found {words}"]
    if len(decided) != 1 or [event.reason for event in refused] != ["already_decided"]:
        return [*faults, f"{id}: the log has {len(decided)} decisions and {len(refused)} refusals"]
    said = "approved" if won[0].decision == "approve" else "rejected"
    if (decided[0].decided_by, decided[0].decision) != (won[0].principal, said):
        faults.append(f"{id}: {won[0].principal} {said}, the log says {decided[0]}")
    if story.end != ENDS[said]:
        faults.append(f"{id}: {said}, the log ends with {story.end}")
    return faults


def _counted(pairs: Any) -> Counter[str]:
    words = [word for pair in pairs for word in pair]
    won: Counter[str] = Counter(f"{word.principal} {word.decision}" for word in words if word.code == 200)
    won["202 first"] = sum(word.late for word in words)
    return won

"""What we asked for and what we were told, kept by the test alone (Jepsen's ok / fail / unknown)."""

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from services.contracts import ids
from tests import waiting
from tests.faults.harness import parcels

ROUTE = "POST /v1/executions"
EXHAUST_ROUTE = "POST job/request/submit"
TAG = "faults"
PATIENCE_S = 120.0
Told = Literal["ok", "fail", "unknown"]
EVENTS: tuple[list[str], ...] = (
    [],
    ["execution.completed", "execution.failed"],
    ["TASK"],
    ["on-execution-complete"],
)


LONG_SHARE = 0.02
EXHAUST_SHARE = 0.25


def msgid(key: str) -> str:
    """S1's idempotency key for one of ours."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, key))


def exhaust(report: str, entries: list[str]) -> dict[str, Any]:
    """A request of S1, whose msgid is set when it is asked; files equal those of the other requests."""
    config = {"batchFilters": entries, "columns": [*parcels.COLUMNS]}
    return {
        "id": "ekstep.analytics.job.request.submit",
        "ver": "1.0",
        "ts": "2016-12-07T12:40:40+05:30",
        "request": {"tag": TAG, "jobId": report, "jobConfig": config, "output_format": "csv"},
    }


@dataclass(slots=True)
class Asked:
    """One request for an execution, under a key of its own."""

    number: int
    key: str
    execution_id: str
    body: dict[str, Any]
    told: Told = "unknown"

    @property
    def exhaust(self) -> bool:
        """Whether it goes by S1's data-exhaust API."""
        return "request" in self.body

    @property
    def entries(self) -> list[str]:
        """S1's batchFilters."""
        entries: list[str] = self.body["request"]["jobConfig"]["batchFilters"]
        return entries

    @property
    def listeners(self) -> dict[str, list[str]]:
        """Path of each callback -> the events it asked for."""
        if self.exhaust:
            return {}
        found = self.body.get("callbacks") or [self.body["callback"]]
        return {"/" + one["url"].split("/", 3)[3]: one["events"] for one in found}

    @property
    def depots(self) -> tuple[str, ...]:
        """The files that must come out."""
        if self.exhaust:
            return tuple(
                sorted({depot for one in self.entries for depot in parcels.REGIONS.get(one, (one,))})
            )
        if self.body["jobType"] != "export":
            return ()
        return tuple(self.body["params"].get("batches", parcels.DEPOTS))

    @property
    def light(self) -> bool:
        """Whether it filters."""
        return "filters" in self.body.get("params", {})


@dataclass(slots=True)
class Secrets:
    """What must never be found anywhere: sent in every callback."""

    canary: str
    signing: str


@dataclass(slots=True)
class History:
    """Submits by the public API. `address` gives (API URL, key) as of now: ports may change."""

    address: Callable[[], tuple[str, str]]
    receiver_url: str
    secrets: Secrets
    rng: random.Random
    prefix: str
    asked: list[Asked] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    retry_after_missing: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new(self, body: dict[str, Any] | None = None) -> Asked:
        """The next request: this body (a callback is added), or one drawn from the seed."""
        with self._lock:
            number = len(self.asked)
            key = f"{self.prefix}-{number}"
            if body is None:
                body = self._body(key, self.rng)
            elif "request" not in body:
                body = {**body, "callback": self._callback(f"{key}/0", self.rng)}
            if "request" in body:
                body = {**body, "params": {"msgid": msgid(key)}}
                id = ids.execution_id("demo", "dev", EXHAUST_ROUTE, msgid(key))
            else:
                id = ids.execution_id("demo", "dev", ROUTE, key)
            asked = Asked(number, key, id, body)
            self.asked.append(asked)
            return asked

    def submit(self, patient: bool = True, body: dict[str, Any] | None = None) -> Asked:
        """Ask; a patient caller repeats the same request until it is accepted."""
        asked = self.new(body)
        if patient:
            waiting.until(lambda: self.once(asked) != "unknown", PATIENCE_S, f"{asked.key} to be accepted")
        else:
            self.once(asked)
        return asked

    def once(self, asked: Asked) -> Told:
        """One POST."""
        url, key = self.address()
        headers = {"Authorization": f"Bearer {key}"}
        if not asked.exhaust:
            headers["Idempotency-Key"] = asked.key
        path = "/data/v3/job/request/submit" if asked.exhaust else "/v1/executions"
        try:
            answer = httpx.post(url + path, json=asked.body, headers=headers, timeout=15, trust_env=False)
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return asked.told
        self.answers[str(answer.status_code)] += 1
        if answer.is_success:
            body = answer.json()
            told = body["result"]["request_id"] if asked.exhaust else body["execution_id"]
            if told != asked.execution_id:
                self.faults.append(f"{asked.key}: the answer names {told}")
            asked.told = "ok"
        elif answer.status_code < 500:
            asked.told = "fail"
            self.faults.append(f"{asked.key}: refused with {answer.status_code}: {answer.text[:300]}")
        elif answer.status_code != 503:
            self.faults.append(f"{asked.key}: {answer.status_code}: {answer.text[:300]}")
        elif "retry-after" not in answer.headers:
            self.retry_after_missing += 1
        return asked.told

    def accepted(self) -> dict[str, Asked]:
        """By execution id, those that we were told are accepted."""
        return {asked.execution_id: asked for asked in [*self.asked] if asked.told == "ok"}

    def known(self) -> dict[str, Asked]:
        """By execution id, all that may exist."""
        return {asked.execution_id: asked for asked in [*self.asked] if asked.told != "fail"}

    def _body(self, path: str, rng: random.Random) -> dict[str, Any]:
        if rng.random() < LONG_SHARE:
            return exhaust(parcels.SLOW_ID, [*parcels.REGIONS])
        if rng.random() < EXHAUST_SHARE:
            entries = [*parcels.REGIONS, *parcels.DEPOTS]
            return exhaust(parcels.REGIONAL_ID, rng.sample(entries, rng.randrange(1, 3)))
        callbacks = [self._callback(f"{path}/{index}", rng) for index in range(rng.choice((1, 1, 2)))]
        callback = {"callback": callbacks[0]} if len(callbacks) == 1 else {"callbacks": callbacks}
        if rng.random() < 0.2:
            return {"jobType": "noop", **callback}
        params: dict[str, Any] = {}
        if rng.random() < 0.8:
            params["batches"] = rng.sample(parcels.DEPOTS, rng.randrange(1, 4))
        if rng.random() < 0.3:
            params["filters"] = [{"column": "grams", "op": "lt", "value": parcels.LIGHT_G}]
        return {"jobType": "export", "dataset": parcels.DATASET_ID, "params": params, **callback}

    def _callback(self, path: str, rng: random.Random) -> dict[str, Any]:
        return {
            "url": f"{self.receiver_url}/{path}",
            "events": rng.choice(EVENTS),
            "headers": {"x-canary": self.secrets.canary},
            "secret": self.secrets.signing,
        }

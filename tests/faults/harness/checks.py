"""The invariants, after every round. Each function returns what is wrong, in words."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import msgspec

from services.contracts import public
from services.contracts.events import (
    Event,
    StepCompleted,
    StepFailed,
    StepRetryScheduled,
    StepRunning,
    matching,
    type_of,
)
from tests import waiting
from tests.faults.harness import parcels
from tests.faults.harness.files import MANIFEST, check_downloads
from tests.faults.harness.history import TAG, Asked, History
from tests.faults.harness.receiver import Receiver
from tests.faults.harness.topic import Story
from tests.faults.harness.watch import Watch

PROJECTED_TIMEOUT_S = 60.0
DELIVERED_TIMEOUT_S = 180.0
RECOVERY_S = 30.0


def check_stories(stories: Mapping[str, Story], history: History) -> list[str]:
    """I1: every accepted id ends exactly once; nothing exists that nobody asked for."""
    faults = [fault for story in stories.values() for fault in story.faults]
    faults += history.faults
    known = history.known()
    faults += [f"{id}: an execution that nobody asked for" for id in stories.keys() - known.keys()]
    for id, asked in history.accepted().items():
        story = stories.get(id)
        if story is None or story.end is None:
            faults.append(f"{asked.key} {id}: accepted, and no terminal event")
        elif story.end == "execution.rejected":
            faults.append(f"{asked.key} {id}: rejected")
    return faults


def check_api(
    stories: Mapping[str, Story], history: History, first: int, address: tuple[str, str], source_url: str
) -> list[str]:
    """From number `first` on: the read tables tell what the log tells, and every file equals psql's COPY."""
    faults: list[str] = []
    url, key = address
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    ) as client:
        for id, asked in history.known().items():
            if asked.number < first:
                continue
            if id not in stories:
                if (code := client.get(f"/v1/executions/{id}").status_code) != 404:
                    faults.append(f"{asked.key} {id}: {code} from the API, nothing in the log")
                continue
            faults += _check_view(client, asked, stories[id], address, source_url)
    return faults


def _check_view(
    client: httpx.Client, asked: Asked, story: Story, address: tuple[str, str], source_url: str
) -> list[str]:
    def projected() -> dict[str, Any] | None:
        view: dict[str, Any] = client.get(f"/v1/executions/{asked.execution_id}").json()
        return view if view["sequence"] >= len(story.events) else None

    view = waiting.until(projected, PROJECTED_TIMEOUT_S, f"{asked.execution_id} to be projected")
    told = client.get(f"/v1/executions/{asked.execution_id}/events").json()["events"]
    expected = [
        msgspec.json.decode(msgspec.json.encode(public.view(event), order=None)) for event in story.events
    ]
    faults = []
    if [(e["type"], e["sequence"], e["event_id"]) for e in told] != [
        (e["type"], e["sequence"], e["event_id"]) for e in expected
    ]:
        faults.append(f"{asked.key}: the API tells other events than the log")
    if f"execution.{view['status']}" != story.end or view["incomplete"]:
        faults.append(f"{asked.key}: status {view['status']}, the log ends with {story.end}")
    if view["status"] == "completed":
        faults += check_downloads(asked, view, story, address, source_url)
    if asked.exhaust:
        faults += _check_exhaust(client, asked, view, address)
    return faults


def _check_exhaust(
    client: httpx.Client, asked: Asked, view: Mapping[str, Any], address: tuple[str, str]
) -> list[str]:
    """S1's answer tells what ours tells; its links give the files that were checked there."""
    answer = client.get(f"/data/v3/job/request/read/{TAG}/{asked.execution_id}")
    job = answer.json()["result"]
    if (answer.status_code, job.get("status")) != (200, view["words"]["exhaust"]):
        return [f"{asked.key}: S1 tells {answer.status_code} {answer.text[:300]}, we tell {view['status']}"]
    if view["status"] != "completed":
        return [f"{asked.key}: S1 gives links"] if job["downloadURLs"] else []
    wanted = {
        "ids": [*asked.depots],
        "channels": [entry for entry in asked.entries if entry in parcels.REGIONS],
    }
    faults = []
    if job["request"]["batchFilters"] != wanted:
        faults.append(f"{asked.key}: expected {wanted}, S1 tells {job['request']['batchFilters']}")
    hashes = {}
    for link in job["downloadURLs"]:
        found = httpx.get(link if link.startswith("http") else address[0] + link, timeout=30, trust_env=False)
        hashes[link.partition("?")[0].rpartition("/")[2]] = hashlib.sha256(found.content).hexdigest()
    if hashes != {file["name"]: file["sha256"] for file in view["files"] if file["name"] != MANIFEST}:
        faults.append(f"{asked.key}: S1's links give {hashes}")
    return faults


def expected_webhooks(stories: Mapping[str, Story], history: History) -> dict[tuple[str, str], Event]:
    """(path, event id) -> event that the receiver must hear of."""
    return {
        (path, event.event_id): event
        for id, asked in history.known().items()
        if id in stories
        for path, names in asked.listeners.items()
        for event in stories[id].events
        if type_of(event) in matching(tuple(names))
    }


def check_webhooks(stories: Mapping[str, Story], history: History, receiver: Receiver) -> list[str]:
    """I4: every expected pair was received, nothing else, always the same bytes under one id."""
    expected = expected_webhooks(stories, history)
    try:
        waiting.until(lambda: expected.keys() <= receiver.pairs(), DELIVERED_TIMEOUT_S, "all webhooks")
    except AssertionError:
        pass
    faults = [f"webhook {pair} is missing" for pair in expected.keys() - receiver.pairs()]
    faults += receiver.faults
    ids: dict[tuple[str, str], str] = {}
    bodies: dict[str, bytes] = {}
    for call in [*receiver.calls]:
        pair = (call.path, call.event_id)
        event = expected.get(pair)
        if event is None:
            faults.append(f"webhook {pair}: nobody is owed this one")
        elif msgspec.json.decode(call.body) != msgspec.json.decode(
            msgspec.json.encode(public.cloud_event(event))
        ):
            faults.append(f"webhook {pair}: the body is not the log's event")
        if call.canary != history.secrets.canary:
            faults.append(f"webhook {pair}: without the header that was asked for")
        if ids.setdefault(pair, call.webhook_id) != call.webhook_id:
            faults.append(f"webhook {pair}: two webhook-ids")
        if bodies.setdefault(call.webhook_id, call.body) != call.body:
            faults.append(f"webhook {pair}: two bodies under one webhook-id")
    return faults


def recoveries(stories: Mapping[str, Story], watch: Watch) -> tuple[list[float], list[str]]:
    """Seconds until the work of each dead worker ran again; what broke the bound."""
    deaths = watch.deaths("worker") | watch.frozen
    found, faults = [], []
    for id, story in stories.items():
        for event, following in lost_takes(story):
            died_at = deaths.get(int(event.worker.rpartition("-")[2]))
            if died_at is None:
                faults.append(f"{id} #{event.sequence}: taken for lost while {event.worker} lives")
                continue
            if following is None:
                continue  # the last attempt: it failed with worker_lost
            start = watch.recovery_start(died_at, following.occurred_at)
            span = max(following.occurred_at - start, timedelta())
            found.append(span.total_seconds())
            if span.total_seconds() > RECOVERY_S:
                faults.append(
                    f"{id} #{following.sequence}: ran again {span.total_seconds():.1f} s"
                    f" after {start:%H:%M:%S.%f} (worker {event.worker} died {died_at:%H:%M:%S.%f})"
                )
    return found, faults


def lost_takes(story: Story) -> list[tuple[StepRunning, StepRunning | None]]:
    """Each take that was given up for its silence, and the next take of the step."""
    found: list[tuple[StepRunning, StepRunning | None]] = []
    running: StepRunning | None = None
    lost: StepRunning | None = None
    for event in story.events:
        match event:
            case StepRunning():
                if lost is not None:
                    found.append((lost, event))
                running, lost = event, None
            case StepRetryScheduled(reason="worker_lost") | StepFailed(reason="worker_lost"):
                lost, running = running, None
            case StepCompleted() | StepFailed() | StepRetryScheduled():
                running = None
            case _:
                pass
    return found + ([(lost, None)] if lost is not None else [])

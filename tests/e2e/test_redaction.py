"""Secrets that were given to a running system, sought in every place where it keeps or says anything."""

import base64
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka import Producer

from examples.demo.story import DATASET, DEFINITION
from services.cli.dev.supervisor import TENANT
from services.contracts import envelope
from services.contracts.commands import JobRequested
from services.runtime import entropy
from services.runtime.entropy import LocalClock
from services.runtime.kafka import producer_config
from services.runtime.schemas import codec
from services.runtime.settings import Kafka
from tests import canary
from tests.canary import Place
from tests.local import Local
from tests.requesting import new_key
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

HEADER = f"Bearer header-{entropy.token(12).hex()}"
COOKIE = f"session={entropy.token(12).hex()}"
SIGNING = base64.b64encode(entropy.token(32)).decode()
WRONG_PLACE = f"misplaced-{entropy.token(12).hex()}"
PLAIN = f"plain-{entropy.token(12).hex()}"
FORM = tuple(f"form-{entropy.token(12).hex()}" for _ in range(3))
SECRETS = (HEADER.removeprefix("Bearer "), COOKIE.removeprefix("session="), SIGNING, WRONG_PLACE)


def api(local: Local) -> httpx.Client:
    headers = {"Authorization": f"Bearer {local.api_key}"}
    return httpx.Client(base_url=local.state["api_url"], headers=headers, timeout=60, trust_env=False)


def request() -> dict[str, object]:
    # Nobody listens at this address: each attempt ends with an error that says so.
    callback = {
        "url": "http://127.0.0.1:9/",
        "headers": {"Authorization": HEADER},
        "secret": f"whsec_{SIGNING}",
    }
    return {
        "jobType": "export",
        "dataset": DATASET,
        "params": {"batches": ["HA"]},
        "headers": {"Cookie": COOKIE},
        "callbacks": [callback],
    }


@pytest.fixture(scope="module")
def execution(local: Local) -> str:
    """A finished export whose request held every kind of secret."""
    with api(local) as client:
        yaml = {"Content-Type": "application/yaml"}
        client.put(
            f"/v1/datasets/{DATASET}", content=DEFINITION.read_bytes(), headers=yaml
        ).raise_for_status()
        done = client.post("/v1/executions", json=request(), headers={"Prefer": "wait=30"})
        id = str(done.json()["execution_id"])
        until(lambda: client.get(f"/v1/executions/{id}").json()["status"] == "completed", 60, "the export")
    return id


@pytest.fixture(scope="module")
def refusals(local: Local, execution: str) -> tuple[Place, ...]:
    """What is answered to secrets in the wrong place, by api and by the manager."""
    spoiled = [
        {**request(), "headers": {"Cookie": WRONG_PLACE + "\n"}},
        {**request(), "callbacks": [{"url": f"http://user:{WRONG_PLACE}@127.0.0.1/", "secret": WRONG_PLACE}]},
        {**request(), "callbacks": [{"url": "http://127.0.0.1/", "headers": {"X": WRONG_PLACE + "\r"}}]},
    ]
    with api(local) as client:
        answers = [client.post("/v1/executions", json=body) for body in spoiled]
        bad_key = client.get("/v1/executions", headers={"Authorization": f"Bearer ms_{WRONG_PLACE}"})
    assert [answer.status_code for answer in (*answers, bad_key)] == [400, 400, 400, 401]
    return tuple(("an answer", answer.content) for answer in (*answers, bad_key))


@pytest.fixture(scope="module")
def dead_letter(local: Local, execution: str) -> None:
    """A request of another service with a secret in clear: refused, its dead letter cut."""
    record = JobRequested(
        execution_id=entropy.fresh_id(),
        tenant="local",
        requested_at=LocalClock().now(),
        created_by="stranger",
        name="plain",
        job_type="noop",
        headers={"Cookie": PLAIN},
    )
    sent = envelope.command(record, codec().encode(record))
    kafka = Kafka(bootstrap_servers=local.state["kafka_bootstrap"])
    producer = Producer(producer_config(kafka, "test-redaction"))
    producer.produce(sent.topic, sent.value, sent.key, headers=list(sent.headers))
    assert producer.flush(30) == 0


def millstream(local: Local, *words: str) -> Place:
    """What a command prints, if it fails too."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "--data", str(local.folder.root), *words],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return f"millstream {' '.join(words[:2])}", done.stdout + done.stderr


def command_line(local: Local, execution: str) -> Iterator[Place]:
    """What the commands print, those that fail included."""
    for words in (
        ("job", "get", execution),
        ("job", "list", "--json"),
        ("job", "logs", execution),
        ("events", "tail", "--execution", execution, "--jsonl"),
        ("dlq", "list", "--json"),
        ("config", "show", "--origin"),
        ("job", "get", "0" * 40),
    ):
        yield millstream(local, *words)


def metrics(local: Local) -> Iterator[Place]:
    with httpx.Client(trust_env=False) as client:
        for name in ("api-health", "manager", "worker", "notifier"):
            url = f"http://127.0.0.1:{local.state['ports'][name]}/metrics"
            yield f"metrics of the {name}", client.get(url).content


def files(local: Local, execution: str) -> Iterator[Place]:
    with api(local) as client:
        for file in client.get(f"/v1/executions/{execution}").json()["files"]:
            if file["name"].endswith(".json"):
                yield f"file {file['name']}", client.get(file["url"]).content


@pytest.mark.usefixtures("dead_letter")
def test_no_secret_is_said_or_kept_in_clear(
    local: Local, execution: str, refusals: tuple[Place, ...]
) -> None:
    """Logs and tracebacks, step logs, answers, metrics, topics, dead letters, outbox and tables, files,
    callbacks' records, the command line."""
    places = [
        *refusals,
        *canary.places(local.state, local.api_key, [execution]),
        *command_line(local, execution),
        *metrics(local),
        *files(local, execution),
    ]
    kinds = {name.split()[0] for name, _ in places}
    assert {"log", "step", "topic", "dump", "GET", "millstream", "metrics", "file"} <= kinds
    assert not canary.search((*SECRETS, local.api_key), places)
    # The stranger itself put it on the topic; nothing of ours carries it further.
    assert canary.search((PLAIN,), places) == ["topic job.requested"]


@pytest.fixture(scope="module")
def approved(local: Local) -> str:
    """A request with secrets in its form and in that of its approval, by name and by declaration."""
    form = [{"name": "account", "secret": True}, {"name": "card_pin"}, {"name": "note"}]
    ask = {"step_name": "ask", "step_type": "WAIT_FOR_APPROVAL", "parameters": {"form": form}}
    call = {
        "step_name": "call",
        "step_type": "API",
        "parameters": {
            "method": "POST",
            "url": "http://127.0.0.1:9/",
            "headers": {"x-session": "${account}"},
            "data": {"pin": "${card_pin}", "cvv": "$.steps.ask.result.form.account"},
            "timeout_s": 2,
        },
        "retry": {"max_attempts": 1},
    }
    values = {"account": FORM[0], "card_pin": FORM[1], "note": "seen"}
    with api(local) as client:
        client.put("/v1/pipelines/masked", json={"form": form, "steps": [ask, call]}).raise_for_status()
        made = client.post("/v1/requests", json={"pipeline": "masked", "values": {**values, "note": "first"}})
        id = str(made.raise_for_status().json()["id"])
        until(lambda: client.get(f"/v1/requests/{id}").json()["status"] == "Pending", 30, "the approval")
        client.post(f"/v1/requests/{id}/amend", json={"values": values}).raise_for_status()
        content = client.get(f"/v1/requests/{id}").json()["content_hash"]
    other = new_key(local.state["database_url"], "grace", TENANT)
    with httpx.Client(base_url=local.state["api_url"], headers={"Authorization": f"Bearer {other}"}) as grace:
        url = f"/v1/requests/{id}/steps/ask/approve"
        bad = grace.post(url, json={"form": {**values, "note": 1}, "contentHash": content})
        assert bad.status_code == 422
        given = {"form": {**values, "account": FORM[2]}, "contentHash": content}
        grace.post(url, json=given, timeout=30).raise_for_status()
    with api(local) as client:
        until(lambda: client.get(f"/v1/requests/{id}").json()["status"] == "Failed", 60, "the end")
    return id


def test_secrets_of_forms_are_shown_nowhere(local: Local, approved: str) -> None:
    """Logs, step logs, answers, events, streams, the command line. Topics and tables hold them."""
    with api(local) as client:
        shown = [
            (f"GET {path}", client.get(path, headers=more).content)
            for path, more in (
                (f"/v1/requests/{approved}", {}),
                ("/v1/requests", {}),
                (f"/v1/executions/{approved}/events", {}),
                (f"/v1/executions/{approved}/events", {"Accept": "text/event-stream"}),
                (f"/v1/executions/{approved}/steps/call/log", {}),
            )
        ]
    ran = [
        millstream(local, *words)
        for words in (
            ("request", "get", approved),
            ("request", "get", approved, "--json"),
            ("request", "watch", approved, "--jsonl"),
            ("events", "tail", "--execution", approved, "--jsonl"),
        )
    ]
    kept = [
        (name, content)
        for name, content in canary.places(local.state, local.api_key, [approved])
        if not name.startswith(("topic ", "dump "))
    ]
    assert b"card_pin" in shown[0][1] and b"seen" in shown[0][1]
    assert not canary.search(FORM, [*shown, *ran, *kept])


def test_the_search_finds_what_is_there() -> None:
    """In clear, as hex and as base64 at any place in the text."""
    secret = SECRETS[0]
    hidden = [
        secret.encode(),
        secret.encode().hex().encode(),
        *(base64.b64encode(b"x" * shift + secret.encode() + b"tail") for shift in range(3)),
    ]
    for text in hidden:
        assert canary.search([secret], [("a place", b"before " + text + b" after")]) == ["a place"]

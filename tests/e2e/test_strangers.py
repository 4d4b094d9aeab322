"""Services that import nothing of ours: one asks through Kafka, one follows the log."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.demo.story import DATASET, DEFINITION
from services.runtime.entropy import LocalClock
from services.runtime.settings import Kafka
from tests.conformance.worlds import read_all
from tests.local import Local

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

NOW = LocalClock().now().isoformat()
EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def followed(local: Local, id: str) -> list[dict[str, Any]]:
    lines = run("follow_events.py", local.state["kafka_bootstrap"], f"strangers-{id[:8]}", id)
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture(autouse=True)
def dataset(local: Local) -> None:
    headers = {"Authorization": f"Bearer {local.api_key}", "Content-Type": "application/yaml"}
    url = f"{local.state['api_url']}/v1/datasets/{DATASET}"
    with httpx.Client(trust_env=False) as client:
        assert client.put(url, content=DEFINITION.read_bytes(), headers=headers).is_success


def test_another_service_asks_and_another_one_follows(local: Local) -> None:
    arguments = (local.state["kafka_bootstrap"], NOW, DATASET, "AA")
    id = run("request_export.py", *arguments).strip()
    assert run("request_export.py", *arguments).strip() == id
    events = followed(local, id)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("execution.accepted", "execution.completed")
    files = {event["file"]["name"]: event["file"] for event in events if event["type"] == "file.published"}
    assert files["reports-AA.csv"]["rows"] == 32_729


def test_a_request_that_cannot_run_is_told_why(local: Local) -> None:
    id = run("request_export.py", local.state["kafka_bootstrap"], NOW, DATASET, "ZZ").strip()
    [rejected] = followed(local, id)
    assert rejected["type"] == "execution.rejected"
    assert 'unknown batch "ZZ"' in rejected["errors"][0]["message"]
    broker = Kafka(bootstrap_servers=local.state["kafka_bootstrap"])
    letters = {record.key: dict(record.headers) for record in read_all(broker, "job.requested.dlq")}
    assert letters[id.encode()]["ms_reason"] == b"rejected"

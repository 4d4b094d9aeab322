"""Manager and worker as real processes: what somebody wants of an execution that runs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.contracts import events, ids
from services.contracts.commands import Definition, JobRequested
from services.runtime import entropy
from services.runtime.entropy import LocalClock
from tests.managing import Client, Managers
from tests.stack import OwnStack
from tests.waiting import until
from tests.working import REJOIN_S, Gate, Workers, slow_source

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

NOW = LocalClock().now()
DATASET = {"source": "main", "table": "public.slow", "columns": [{"name": "id", "type": "integer"}]}


def export(client: Client, **changes: Any) -> str:
    """Ask for an export of the slow view; its execution id."""
    execution_id = entropy.fresh_id()
    definition = Definition(kind="dataset", id="slow", revision=1, body=DATASET)
    request = JobRequested(
        execution_id=execution_id,
        tenant="acme",
        requested_at=LocalClock().now(),
        created_by="alice",
        name="slow",
        job_type="export",
        definition=definition,
        parameters={"params": {}, "time_range": None},
        **changes,
    )
    client.say(request)
    return execution_id


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """Both processes use the fixed topic names."""
    return own


@pytest.fixture
def client(own: OwnStack, tmp_path: Path) -> Iterator[Client]:
    """With a manager that is ready."""
    managers = Managers(own, tmp_path, own.fresh_database())
    managers.started()
    client = Client(own)
    yield client
    client.close()
    managers.end()


@pytest.fixture
def gate(workers: Workers, gate: Gate) -> Gate:
    """The view that exports read waits until the gate is open."""
    slow_source(workers)
    return gate


def test_a_running_export_is_cancelled_and_run_again(client: Client, workers: Workers, gate: Gate) -> None:
    workers.started()
    execution = export(client)
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running query")
    client.command(execution, "cancel", reason="wrong month")
    until(lambda: gate.waiting() == 0, 10, "the end of the query")
    assert client.wait(execution, "execution.cancelled")[-2:] == ["step.cancelled", "execution.cancelled"]
    gate.open()
    again = ids.rerun_id(execution, 1)
    client.command(execution, "rerun", rerun_id=again)
    assert "file.published" in client.wait(again, "execution.completed")
    assert client.names(execution)[-2:] == ["execution.cancelled", "execution.rerun"]
    taken = ids.rerun_id(again, 1)
    client.command(again, "rerun", rerun_id=taken, reuse_results=True)
    assert "step.running" not in client.wait(taken, "execution.completed")
    assert "file.published" in client.names(taken)


def test_what_is_cancelled_before_a_worker_comes_never_runs(
    client: Client, workers: Workers, gate: Gate
) -> None:
    first = export(client)
    client.wait(first, "execution.accepted")
    client.command(first, "cancel")
    client.wait(first, "execution.cancelled")
    later = export(client, run_at=LocalClock().now() + timedelta(seconds=3))
    assert client.wait(later, "execution.accepted") == ["execution.accepted"]
    workers.started()
    gate.open()
    client.wait(later, "execution.completed")
    assert client.names(first) == ["execution.accepted", "step.cancelled", "execution.cancelled"]
    accepted, started = client.history[later][:2]
    assert isinstance(accepted, events.ExecutionAccepted)
    assert accepted.request.run_at is not None
    assert started.occurred_at >= accepted.request.run_at

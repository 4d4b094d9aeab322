"""Sources belong to tenants: who may not use one can neither define a dataset over it nor export from it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import serving
from tests.serving import FLIGHTS, Api

pytestmark = pytest.mark.postgres

CLOSED = (
    'source "flights" is not open to this tenant;'
    " an administrator names it in MILLSTREAM_SOURCES__FLIGHTS__TENANTS"
)
EXPORT = {"step_name": "export", "step_type": "EXPORT", "parameters": {"dataset": "flights-report"}}
SUBMITS: dict[str, tuple[str, Any, str]] = {
    "execution": ("/v1/executions", {"jobType": "export", "dataset": "flights-report"}, "dataset"),
    "pipeline": ("/v1/executions", {"jobType": "pipeline", "pipeline": "reports"}, "pipeline"),
    "request": ("/v1/requests", {"pipeline": "reports"}, "pipeline"),
}


@pytest.fixture
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("operator", tenant="b")) as made:
        yield made


def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(serving.SOURCES, "flights", ("a",))


def errors(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 400, answer.text
    return [(error["pointer"], error["message"]) for error in answer.json()["errors"]]


def test_a_dataset_over_a_source_of_another_tenant_is_refused(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed(monkeypatch)
    assert errors(client.put("/v1/datasets/spied", content=FLIGHTS)) == [("source", CLOSED)]
    assert client.get("/v1/datasets/spied").status_code == 404


def test_a_source_that_does_not_exist_is_refused_alike(client: httpx.Client) -> None:
    """Else the answer would say which sources others have."""
    answer = client.put("/v1/datasets/spied", content=FLIGHTS.replace("source: flights", "source: vault"))
    assert errors(answer) == [("source", CLOSED.replace("flights", "vault").replace("FLIGHTS", "VAULT"))]


def test_a_source_that_was_closed_since_refuses_pipelines_and_every_submit(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put("/v1/datasets/flights-report", content=FLIGHTS).raise_for_status()
    client.put("/v1/pipelines/reports", json={"steps": [EXPORT]}).raise_for_status()
    before = api.count("job_request")
    closed(monkeypatch)
    found = errors(client.put("/v1/pipelines/again", json={"steps": [EXPORT]}))
    assert found == [("datasets.flights-report.source", CLOSED)]
    for path, body, pointer in SUBMITS.values():
        assert errors(client.post(path, json=body)) == [(pointer, CLOSED)]
    assert api.count("job_request") == before

"""Pipelines and service requests by REST, as a caller makes and watches them."""

from dataclasses import dataclass
from typing import Any

import httpx

from services.api import keys
from services.api.keys import Caller, Role
from tests.stack import transaction
from tests.waiting import until

ENDED = {"Completed", "Failed", "Cancelled"}
WITHIN_S = 90.0


def new_key(database_url: str, principal: str, tenant: str = "acme", **more: Any) -> str:
    """A key of an operator; `more` are an owner, groups."""
    with transaction(database_url) as cursor:
        return keys.create(cursor, Caller(tenant, principal, Role.OPERATOR, **more))


@dataclass(frozen=True, slots=True)
class Requests:
    """One caller of one api process."""

    client: httpx.Client

    @classmethod
    def of(cls, url: str, key: str) -> "Requests":
        """With this key."""
        headers = {"Authorization": f"Bearer {key}"}
        return cls(httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False))

    def put(self, pipeline: str, body: Any) -> dict[str, Any]:
        """Store a definition: a value, or YAML as text."""
        if isinstance(body, str):
            headers = {"Content-Type": "application/yaml"}
            answer = self.client.put(f"/v1/pipelines/{pipeline}", content=body.encode(), headers=headers)
        else:
            answer = self.client.put(f"/v1/pipelines/{pipeline}", json=body)
        assert answer.is_success, answer.text
        stored: dict[str, Any] = answer.json()
        return stored

    def make(self, pipeline: str, values: Any = None, **more: Any) -> str:
        """Ask for one; its id."""
        answer = self.client.post("/v1/requests", json={"pipeline": pipeline, "values": values or {}, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def say(self, id: str, what: str, body: Any = None, key: str | None = None) -> httpx.Response:
        """Give a command: `start`, `steps/<name>/approve`."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.client.post(f"/v1/requests/{id}/{what}", json=body or {}, headers=headers)

    def view(self, id: str) -> dict[str, Any]:
        """The request as of now."""
        answer = self.client.get(f"/v1/requests/{id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, id: str) -> dict[str, Any]:
        """Its last view."""

        def found() -> dict[str, Any] | None:
            view = self.view(id)
            return view if view["status"] in ENDED else None

        return until(found, WITHIN_S, f"the request {id} to end")

    def waiting(self, id: str, reason: str) -> dict[str, Any]:
        """Its view once it waits for this."""

        def found() -> dict[str, Any] | None:
            view = self.view(id)
            assert view["status"] not in ENDED, view
            return view if (view["waiting"] or {}).get("reason") == reason else None

        return until(found, WITHIN_S, f"the request {id} to wait for {reason}")

    def events(self, id: str) -> list[dict[str, Any]]:
        """Its history so far."""
        answer = self.client.get(f"/v1/executions/{id}/events", params={"limit": 1000})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    def types(self, id: str) -> list[str]:
        """The types of its events so far."""
        return [event["type"] for event in self.events(id)]

    def told(self, id: str, type_: str) -> dict[str, Any]:
        """The first event of a type, once it is there."""

        def found() -> dict[str, Any] | None:
            return next((event for event in self.events(id) if event["type"] == type_), None)

        return until(found, WITHIN_S, f"{type_} of {id}")


def statuses(view: dict[str, Any]) -> dict[str, str]:
    """Step -> S3's word for what it is."""
    return {step["step_name"]: step["status"] for step in view["steps"]}

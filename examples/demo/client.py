"""Millstream's public API, as any client would call it."""

from pathlib import Path
from typing import Any

import httpx

from examples.demo.failure import Failed

TIMEOUT_S = 30.0
CHUNK_BYTES = 256 * 1024


class Client:
    """One API key. Every method raises Failed for an answer that is not the expected one."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        # A proxy set for the internet must not come between two processes of this machine.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self._links = httpx.Client(timeout=TIMEOUT_S, trust_env=False)  # a link needs no key

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._links.close()

    def put_dataset(self, id: str, definition: bytes) -> dict[str, Any]:
        """Create or replace a dataset from YAML; its current revision."""
        headers = {"Content-Type": "application/yaml"}
        return self._json("PUT", f"/v1/datasets/{id}", (200, 201), content=definition, headers=headers)

    def submit(self, body: dict[str, Any], idempotency_key: str) -> str:
        """Ask for an execution; its id."""
        headers = {"Idempotency-Key": idempotency_key}
        answer = self._json("POST", "/v1/executions", (202,), json=body, headers=headers)
        return str(answer["execution_id"])

    def execution(self, id: str) -> dict[str, Any]:
        """An execution as of now, with links to its files."""
        return self._json("GET", f"/v1/executions/{id}", (200,))

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        """What happened since the event with this sequence."""
        events: list[dict[str, Any]] = self._json(
            "GET", f"/v1/executions/{id}/events", (200,), params={"after": after}
        )["events"]
        return events

    def download(self, url: str, target: Path) -> None:
        """Follow a link into a file."""
        try:
            with self._links.stream("GET", url) as answer, target.open("wb") as file:
                if answer.status_code != 200:
                    answer.read()
                    raise Failed(f"{target.name}: expected 200 from its link, found {_said(answer)}")
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    file.write(chunk)
        except httpx.HTTPError as error:
            found = f"{type(error).__name__}: {error}"
            raise Failed(f"{target.name}: expected its link to answer, found {found}") from None

    def _json(self, method: str, path: str, expected: tuple[int, ...], **content: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise Failed(
                f"{method} {path}: expected an answer, found {type(error).__name__}: {error}"
            ) from None
        if answer.status_code not in expected:
            wanted = " or ".join(str(status) for status in expected)
            raise Failed(f"{method} {path}: expected {wanted}, found {_said(answer)}")
        body: dict[str, Any] = answer.json()
        return body


def _said(answer: httpx.Response) -> str:
    return f"{answer.status_code}: {answer.text[:500]}"

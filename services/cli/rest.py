"""The public REST API as commands use it: every failure is one message with an exit code."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin

import httpx
import msgspec
import typer

from services.cli import sse, targets
from services.cli.failure import Exit, Failed
from services.cli.sse import Message
from services.cli.targets import Target

# reading: more than the longest wait of a submit, and than the silence between two heartbeats of a stream
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
RECONNECT_S = 1.0
RECONNECTS_MAX = 30
"""In a row without one line: half a minute, enough for a restart of the api behind the address."""
TRY_AGAIN = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})


class Api:
    """A session with one api."""

    def __init__(self, target: Target) -> None:
        """Connects to nothing yet. Raises Failed when the address or the key is not known."""
        self.url, key = target.api()
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "millstream-cli"},
            timeout=TIMEOUT,
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a GET. Raises Failed."""
        return self.request("GET", path, params=parameters).json()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """An answer that is no error; `content` is a body as it is. Raises Failed."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            # msgspec, since YAML knows instants and JSON does not
            content = content if body is None else msgspec.json.encode(body)
            sent = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
            answer = self._client.request(method, path, content=content, headers=sent, params=given)
        except httpx.HTTPError as error:
            raise self._away(error) from None
        if answer.is_error:
            raise _refused(answer)
        return answer

    def pages(self, path: str, **parameters: Any) -> Iterator[Any]:
        """The items of a list, page after page."""
        page = self.get(path, **parameters)
        yield from page["items"]
        while page["next"] is not None:
            page = self.get(page["next"])
            yield from page["items"]

    def stream(self, path: str, last_id: str = "", **parameters: Any) -> Iterator[Message]:
        """The messages of a stream until the server says that it has ended; never one twice.

        A connection that ends otherwise is made anew. Raises Failed on a refusal, or when the api stays away.
        """
        failures = 0

        def heard(answer: httpx.Response) -> Iterator[str]:
            nonlocal failures
            for line in sse.lines(answer.iter_text()):
                failures = 0  # a comment tells as well as a message that the api is there
                yield line

        while True:
            reason: Exception = httpx.ReadError("the stream ended without a word")
            try:
                with self._opened(path, last_id, parameters) as answer:
                    if answer.status_code == httpx.codes.NO_CONTENT:
                        return
                    for message in sse.messages(heard(answer)):
                        if message.event == "end":
                            return
                        last_id = message.id
                        yield message
            except httpx.HTTPError as error:
                reason = error
            failures += 1
            if failures > RECONNECTS_MAX:
                raise self._away(reason)
            time.sleep(RECONNECT_S)

    def download(self, url: str) -> Iterator[bytes]:
        """The bytes behind a signed link, which needs no key. Raises Failed."""
        try:
            with httpx.stream("GET", urljoin(self.url, url), timeout=TIMEOUT) as answer:
                if answer.is_error:
                    raise Failed(f"{url.partition('?')[0]}: expected the file, found {answer.status_code}")
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise self._away(error) from None

    @contextmanager
    def _opened(self, path: str, last_id: str, parameters: Mapping[str, Any]) -> Iterator[httpx.Response]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        with self._client.stream("GET", path, headers=headers, params=parameters) as answer:
            if answer.is_error:
                answer.read()
                refused = _refused(answer)
                if answer.status_code in TRY_AGAIN:
                    raise httpx.ReadError(str(refused))
                raise refused
            yield answer

    def _away(self, error: Exception) -> Failed:
        found = str(error) or type(error).__name__
        mend = "is it running? `millstream context show` tells where this address comes from"
        return Failed(f"{self.url}: expected an answer, found: {found}; {mend}")


def connect(context: typer.Context) -> Api:
    """The api that the running command talks to, closed when the command ends. Raises Failed."""
    api = Api(targets.chosen(context))
    context.call_on_close(api.close)
    return api


def _refused(answer: httpx.Response) -> Failed:
    """The problem (RFC 9457) that the api answered, as text."""
    signed_out = answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    code = Exit.NOT_SIGNED_IN if signed_out else Exit.FAILED
    try:
        problem = answer.json()
        lines = [f"{problem['title']}: {problem['detail']}"]
        errors = problem.get("errors", [])
        if len(errors) > 1:
            lines = [f"{problem['title']}:", *(f"  {e['pointer']}: {e['message']}" for e in errors)]
    except (ValueError, KeyError, TypeError):
        lines = [f"expected an answer of Millstream, found {answer.status_code} {answer.reason_phrase}"]
    return Failed("\n".join(lines), code)

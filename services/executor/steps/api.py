"""API: one call of a URL through the guarded client (S3 3.4-3.10). docs/steps.md tells its users.

The status decides: the codes of success (200 alone, unless the step says otherwise) are Done; what may pass
by itself is Retry; all else is Fail. Known secrets are masked wherever the answer goes.
"""

import asyncio
from dataclasses import dataclass
from math import ceil
from time import monotonic

import msgspec

from services.contracts import places, urls
from services.contracts.commands import File, Json, StepRequested
from services.executor.calls import answer, request
from services.executor.calls.answer import Body, Unreadable
from services.executor.calls.request import Request, Unusable
from services.executor.calls.shown import Shown
from services.executor.steps.outcome import OUTPUT_BYTES_MAX, Done, Fail, Outcome, Retry
from services.executor.steps.step import Context
from services.runtime.blobs import BlobsUnavailable
from services.runtime.entropy import LocalClock
from services.runtime.exchange import (
    Malformed,
    Refused,
    Response,
    SendError,
    TimedOut,
    instant,
    retry_after_s,
)

RETRIED = frozenset({408, 425, 429, *range(500, 600)})
RETRY_AFTER_MAX_S = 3_600.0
SNIPPET_CHARS = 500
KINDS = {
    "json": ("json", "application/json"),
    "text": ("txt", "text/plain; charset=utf-8"),
    "bytes": ("bin", "application/octet-stream"),
}
"""The ending of a body's file and its type: never one that a browser would run."""


class Api:
    """See the module."""

    def destination(self, request: StepRequested) -> str:
        """Host and port; empty where the URL has none, which `run` will refuse."""
        try:
            parsed = urls.parse(str(request.parameters.get("url")))
        except ValueError:
            return ""
        return f"{parsed.host.rstrip('.')}:{parsed.port}"

    async def run(self, request: StepRequested, context: Context) -> Outcome:
        """Until the answer is there or the timeout is over."""
        return await _Take(request, context).run()


@dataclass(frozen=True, slots=True)
class _Take:
    """One call."""

    step: StepRequested
    context: Context

    async def run(self) -> Outcome:
        # Bodies are large and the blob store may be slow: all but the call itself is for threads.
        try:
            asked, shown = await asyncio.to_thread(self._asked)
        except Unusable as error:
            return Fail(error.reason, str(error))
        began = monotonic()
        try:
            response = await self.context.outbound.caller.send(
                asked.method,
                asked.url,
                asked.headers,
                asked.body,
                owner=self.step.tenant,
                timeout_s=asked.timeout_s,
                kept_bytes=asked.response_bytes_max,
            )
        except SendError as error:
            self.context.log.warning("api_call_failed", error=str(error))
            return _unanswered(error, asked, self.step)
        return await asyncio.to_thread(self._judged, asked, response, shown, monotonic() - began)

    def _asked(self) -> tuple[Request, Shown]:
        asked = request.read(self.step, self.context.outbound.secrets.get(self.step.tenant, {}))
        shown = Shown(asked.secrets)
        self._log_request(asked, shown)
        return asked, shown

    def _judged(self, asked: Request, response: Response, shown: Shown, duration_s: float) -> Outcome:
        body: Body | None = None
        fault: Unreadable | None = None
        try:
            content = answer.unpacked(response, asked.response_bytes_max)
            body = answer.read(content, response.headers.get("content-type", ""))
        except Unreadable as error:
            fault = error
        text = _snippet(response, body, shown)
        self._log_response(response, text, shown, duration_s)
        if not asked.succeeded(response.status):
            return _unsuccessful(asked, response, text)
        if outcome := _cut(asked, response, self.step):
            return outcome
        if body is None:
            assert fault is not None
            kind = Retry if fault.reason == "bad_response" else Fail
            return kind(fault.reason, str(fault))
        try:
            return self._result(response, body, shown)
        except BlobsUnavailable as error:
            self.context.log.warning("blobs_unavailable", error=str(error))
            return Retry("blobs_unavailable", "the blob store cannot take the answer's body now")

    def _result(self, response: Response, body: Body, shown: Shown) -> Done:
        headers = {name: shown.plain(value) for name, value in answer.kept_headers(response).items()}
        output: dict[str, Json] = {"status": response.status, "headers": headers, "body": None}
        if body.is_read:
            whole = {**output, "body": shown.value(body.value), "body_file": None}
            if len(msgspec.json.encode(whole)) <= OUTPUT_BYTES_MAX:
                return Done(whole)
        file = self._file(body, shown)
        return Done({**output, "body_file": file.name}, (file,))

    def _file(self, body: Body, shown: Shown) -> File:
        """The body as it came, but for the secrets."""
        ending, content_type = KINDS[body.form]
        step = self.step
        visit = "" if step.visit == 1 else f"-{step.visit}"
        folder = places.take_folder(
            step.tenant, step.execution_id, step.step, step.attempt_id, self.context.take_id
        )
        key = places.file_key(folder, f"response.{ending}")
        with self.context.files.create(step.tenant, key) as writer:
            writer.write(shown.raw(body.content))
            writer.finish()
        return File(
            name=f"{step.step}-response{visit}.{ending}",
            key=key,
            batch=None,
            rows=0,
            bytes=writer.bytes,
            sha256=writer.sha256,
            content_type=content_type,
        )

    def _log_request(self, asked: Request, shown: Shown) -> None:
        log = self.context.log
        headers = shown.headers(asked.headers)
        log.info("api_request", method=asked.method, url=shown.url(asked.url), headers=headers)
        if asked.body:
            value = msgspec.json.decode(asked.body)
            log.info("api_request_body", body=shown.body(asked.body, value))

    def _log_response(self, response: Response, text: str, shown: Shown, duration_s: float) -> None:
        log = self.context.log
        log.info(
            "api_response",
            status=response.status,
            duration_s=round(duration_s, 3),
            bytes=len(response.body),
            cut=response.cut,
            headers=shown.headers(response.headers),
        )
        if text:
            log.info("api_response_body", body=text)


def _snippet(response: Response, body: Body | None, shown: Shown) -> str:
    """What came of the body, for people."""
    if body is not None:
        return shown.body(body.content, body.value if body.form == "json" else None)
    encoding = response.headers.get("content-encoding", "")
    return f"(encoded as {encoding[:40]!r}, not shown)"


def _unanswered(error: SendError, asked: Request, step: StepRequested) -> Outcome:
    match error:
        case Malformed():
            return Fail("bad_url", str(error))
        case Refused():
            return Fail("address_refused", str(error))
        case TimedOut():
            return _too_slow(str(error), asked, step)
        case _:
            return Retry("connection", str(error))


def _unsuccessful(asked: Request, response: Response, text: str) -> Outcome:
    reason = f"http_{response.status}"
    told = f"{asked.method} was answered with {response.status}"
    if 300 <= response.status < 400:
        told += " (redirects are not followed)"
    message = f"{told}: {text[:SNIPPET_CHARS]}" if text else told
    if response.status not in RETRIED:
        return Fail(reason, message)
    return Retry(reason, message, _pause_s(response))


def _pause_s(response: Response) -> float | None:
    """What the receiver asked for, by its own clock where it shows it."""
    now = instant(response.headers.get("date", "")) or LocalClock().now()
    return float(ceil(retry_after_s(response.headers.get("retry-after"), now, RETRY_AFTER_MAX_S))) or None


def _cut(asked: Request, response: Response, step: StepRequested) -> Outcome | None:
    match response.cut:
        case None:
            return None
        case "too_long":
            limit = f"response_bytes_max of {asked.response_bytes_max} bytes"
            return Fail("response_too_large", f"the answer is longer than the {limit}")
        case "too_slow":
            return _too_slow(f"the answer was not complete within {asked.timeout_s:g} s", asked, step)
        case "broken":
            return Retry("connection", "the connection ended before the answer was complete")


def _too_slow(message: str, asked: Request, step: StepRequested) -> Outcome:
    """The call's own timeout is worth another attempt, the step's is its end."""
    if asked.timeout_s < step.timeout_s:
        return Retry("timeout", message)
    return Fail("timeout", f"the step ran longer than its timeout of {step.timeout_s} s: {message}")

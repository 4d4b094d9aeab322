"""One attempt of one delivery: open what is sealed, sign, send, and tell what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from standardwebhooks import Webhook

from services.contracts.callbacks import METHODS, header_fault, is_signing_secret, value_fault
from services.notifier.core.redaction import snippet
from services.notifier.core.schedule import Result
from services.notifier.store import Claim
from services.runtime import crash, sealing
from services.runtime.exchange import Refused, SendError
from services.runtime.http import Client

TIMEOUT_S = 15.0
CONTENT_TYPE = "application/cloudevents+json"


class Unsendable(Exception):
    """The delivery cannot be made into a request, now or ever."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The result, and the piece of the answer that is kept for people, without our secrets in it."""

    result: Result
    response: str | None = None


class Sender:
    """Turns claims into requests. What it opens lives as long as the attempt."""

    def __init__(self, client: Client, sealer: sealing.Sealer) -> None:
        self._client = client
        self._sealer = sealer

    async def attempt(self, claim: Claim, now: datetime) -> Sent:
        """Send once; does not raise for what the receiver or the delivery's data does.

        `now` becomes the webhook-timestamp; the webhook-id is the delivery's at every attempt.
        """
        try:
            opened = self._opened_headers(claim)
            secret = self._opened_secret(claim)
            headers = {**opened, **_own_headers(claim, secret, now)}
        except sealing.UnknownKey as error:
            return Sent(Result(error=str(error)))  # the operator may add the key while we try on
        except (sealing.Tampered, Unsendable) as error:
            return Sent(Result(error=str(error), permanent=True))
        crash.reach("notifier.send")
        try:
            response = await self._client.send(
                claim.method, claim.url, headers, claim.body, owner=claim.tenant
            )
        except SendError as error:
            return Sent(Result(error=str(error), permanent=isinstance(error, Refused)))
        crash.reach("notifier.sent")
        secrets = [*opened.values(), *([secret] if secret else [])]
        return Sent(
            Result(status=response.status, retry_after=response.headers.get("retry-after")),
            snippet(response.body, response.headers.get("content-encoding", ""), secrets),
        )

    def _opened_headers(self, claim: Claim) -> dict[str, str]:
        if claim.method not in METHODS:
            raise Unsendable(f"method: expected one of {', '.join(METHODS)}")
        opened: dict[str, str] = {}
        for name, sealed in claim.headers.items():
            value = self._sealer.open(sealed, claim.tenant, sealing.callback_header(name))
            # api has checked both; a request of another service only passed the manager.
            if fault := header_fault(name) or value_fault(value):
                raise Unsendable(f"headers[{name[:80]!r}]: {fault}")
            opened[name] = value
        return opened

    def _opened_secret(self, claim: Claim) -> str | None:
        if claim.secret is None:
            return None
        secret = self._sealer.open(claim.secret, claim.tenant, sealing.CALLBACK_SECRET)
        if not is_signing_secret(secret):
            raise Unsendable("secret: expected whsec_ and base64, found another form (not shown)")
        return secret


def _own_headers(claim: Claim, secret: str | None, now: datetime) -> Mapping[str, str]:
    """Standard Webhooks 1.0: id, timestamp in whole seconds, and the signature over both and the body."""
    headers = {
        "content-type": CONTENT_TYPE,
        "webhook-id": claim.delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    if secret is not None:
        headers["webhook-signature"] = Webhook(secret).sign(claim.delivery_id, now, claim.body.decode())
    return headers

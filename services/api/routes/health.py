"""/livez, /readyz, /metrics: open to everybody who reaches the port."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from services.api.bodies import reply
from services.api.parts import AnyParts
from services.api.pool import DatabaseAway
from services.runtime import telemetry

READY_WITHIN_S = 2.0

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="live")
async def live() -> Response:
    """The process answers."""
    return reply({"ok": True})


@router.get("/readyz", operation_id="ready", responses={503: {"description": "the database is away"}})
async def ready(parts: AnyParts) -> Response:
    """Whether requests are taken. `degraded` names what is away although they are (Kafka)."""
    body: dict[str, Any] = {"degraded": parts.degraded()}
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await parts.pool.read(lambda cursor: cursor.execute("SELECT 1"))
    except (DatabaseAway, TimeoutError):
        return reply({"ok": False, "detail": "the database is away", **body}, 503)
    return reply({"ok": True, **body})


@router.get("/metrics", operation_id="metrics")
async def metrics() -> Response:
    """The metrics of this process as Prometheus text."""
    return Response(telemetry.metrics_text(), media_type=telemetry.METRICS_CONTENT_TYPE)

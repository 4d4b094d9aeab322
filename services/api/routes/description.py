"""GET /openapi.json: what this api offers, for those who may use it."""

from fastapi import APIRouter, Request, Response

from services.api.bodies import reply
from services.api.parts import Viewer

router = APIRouter(tags=["description"])


@router.get("/openapi.json", operation_id="describe", include_in_schema=False)
async def describe(request: Request, _: Viewer) -> Response:
    """The OpenAPI 3.1 document."""
    return reply(request.app.openapi())

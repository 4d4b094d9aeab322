"""GET /v1/me: whose key it is that was sent, and what it may do."""

from fastapi import APIRouter, Response

from services.api import openapi, views
from services.api.bodies import reply
from services.api.parts import Viewer

router = APIRouter(tags=["me"], responses=openapi.PROBLEMS)


@router.get("/v1/me", operation_id="whoAmI", responses={200: openapi.json_of("Me", "as of now")})
async def me(caller: Viewer) -> Response:
    """Tenant, name, role and groups of the key that was sent. Of the key itself only its id is told."""
    return reply(views.me(caller))

"""GET /openapi.json, /asyncapi.json, /asyncapi.yaml: what api and topics offer, for those with a key."""

from functools import cache
from typing import Any

import yaml
from fastapi import APIRouter, Request, Response

from services.api import openapi
from services.api.bodies import reply
from services.api.parts import Viewer
from services.runtime import schemas

router = APIRouter(tags=["description"], responses=openapi.PROBLEMS)


@router.get("/openapi.json", operation_id="describe", responses={200: openapi.document("OpenAPI 3.1")})
async def describe(request: Request, _: Viewer) -> Response:
    """The REST API: the OpenAPI 3.1 document."""
    return reply(request.app.openapi())


@router.get(
    "/asyncapi.json", operation_id="describeTopics", responses={200: openapi.document("AsyncAPI 3.0")}
)
async def topics(_: Viewer) -> Response:
    """Topics, records and headers: the AsyncAPI 3 document."""
    return reply(_asyncapi())


@router.get(
    "/asyncapi.yaml",
    operation_id="describeTopicsAsYaml",
    responses={200: openapi.document("AsyncAPI 3.0", "application/yaml")},
)
async def topics_as_yaml(_: Viewer) -> Response:
    """Topics, records and headers: the AsyncAPI 3 document as YAML."""
    return Response(_text(), media_type="application/yaml")


@cache
def _text() -> str:
    return (schemas.FOLDER / "asyncapi.yaml").read_text(encoding="utf-8")


@cache
def _asyncapi() -> Any:
    return yaml.safe_load(_text())

"""The application: routes, errors, headers. It holds no state of its own."""

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from services.api import openapi, problems, wire
from services.api.middleware import Observed
from services.api.parts import Parts
from services.api.pool import DatabaseAway
from services.api.problems import answer, away
from services.api.quick import Quick, QuickSubmit
from services.api.routes import (
    commands,
    definitions,
    description,
    events,
    executions,
    exhaust,
    files,
    logs,
    me,
    pipelines,
    request_commands,
    requests,
    submit,
)
from services.api.targets import Targets
from services.api.wire import Wire

VERSION = "1"


def create(parts: Parts) -> FastAPI:
    """The ASGI application over its parts."""
    app = FastAPI(
        title="Millstream",
        version=VERSION,
        description="Turns requests into files, every step an event in an immutable log.",
        openapi_url=None,  # a route of ours, which asks for a key
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    problems.install(app)
    app.add_exception_handler(DatabaseAway, _on_database_away)
    described = (description, me, definitions, pipelines, submit, executions, events, logs, commands)
    for module in (*described, requests, request_commands, exhaust, files):
        # Flat, not include_router: its nested routers hide paths and methods from errors and metrics.
        app.router.routes.extend(module.router.routes)
    openapi.install(app)
    app.add_middleware(Targets)
    return app


def served(parts: Parts) -> ASGIApp:
    """What the server runs: the application, what is quicker without it, and what every request gets."""
    app = create(parts)
    route = next(route for route in submit.router.routes if isinstance(route, APIRoute))
    return Observed(QuickSubmit(app, parts, route))


def protocol(parts: Parts) -> type[Wire]:
    """What the server reads connections with."""
    return wire.protocol(Quick(parts), Observed, parts.door)


async def _on_database_away(request: Request, error: Exception) -> Response:
    return answer(request, away(error))

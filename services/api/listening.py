"""uvicorn as api runs it."""

import asyncio
import socket

import uvicorn

from services.api import app, lag
from services.api.health import Health
from services.api.parts import Parts

KEEP_ALIVE_S = 30
HTTP_DRAIN_S = 10.0


class HttpServer(uvicorn.Server):
    """Serves the application; in a thread of ours it leaves signals alone. Its event loop is watched."""

    def __init__(self, parts: Parts, keep_alive_s: int = KEEP_ALIVE_S, health: Health | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app.served(parts),
                http=app.protocol(parts),
                host="127.0.0.1",
                port=0,
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=True,
                timeout_keep_alive=keep_alive_s,
                timeout_graceful_shutdown=int(HTTP_DRAIN_S),
                proxy_headers=False,  # ours counts addresses before the application is asked
                ws="none",
                lifespan="off",
            )
        )
        self._health = health
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        if self._health is not None:
            self._health.loop = asyncio.get_running_loop()
        self._watching = asyncio.create_task(lag.watch())
        await super().startup(sockets)

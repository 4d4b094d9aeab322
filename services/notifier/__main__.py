"""`python -m services.notifier [migrate]`: without a command, match and deliver until SIGTERM."""

import asyncio
import os
import sys
import threading
from importlib.metadata import version

from services.notifier.core.following import Following
from services.notifier.dispatcher import Dispatcher, Limits
from services.notifier.matcher import CHANNEL, Matcher, write_rows
from services.notifier.sender import TIMEOUT_S, Sender
from services.notifier.settings import MigrateSettings, Settings
from services.notifier.store import Store
from services.runtime import crash, migrations, setting_values, settings, signals, telemetry, wakeups
from services.runtime.health import HealthServer
from services.runtime.http import Client
from services.runtime.processor import run
from services.runtime.processor.loop import Processor
from services.runtime.schemas import codec
from services.runtime.sealing import Sealer

USAGE = "usage: python -m services.notifier [migrate]"

log = telemetry.get_logger()


def main(arguments: list[str]) -> int:
    """Serve or migrate; 0 after a drain, 1 when a part crashed, 2 for wrong usage or settings."""
    if arguments not in ([], ["migrate"]):
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        return migrate() if arguments else serve()
    except settings.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def migrate() -> int:
    """Bring the notifier's schema up to date."""
    chosen = settings.load(MigrateSettings, os.environ)
    migrations.migrate(chosen.database.url.get_secret_value(), "notifier")
    return 0


def serve() -> int:
    """The matcher's loop in a thread, the dispatcher in this one's event loop; both end together."""
    chosen = settings.load(Settings, os.environ)
    telemetry.configure("notifier")
    crash.arm(chosen.crash)
    log.info("started", settings=settings.masked(chosen))
    stop = signals.install()
    loop = run.processor(
        Matcher(codec()), chosen.kafka, chosen.database, chosen.loop, chosen.blobs, write_rows=write_rows
    )
    matcher = _Matching(loop, stop)
    matcher.start()
    crashed = False
    try:
        asyncio.run(_dispatch(chosen, loop, stop))
    except Exception:
        log.exception("dispatcher_crashed")
        crashed = True
    stop.set()
    matcher.join()
    log.info("stopped")
    return 1 if crashed or matcher.crashed else 0


class _Matching(threading.Thread):
    """The loop's thread. Its crash ends the process: the supervisor starts it anew."""

    def __init__(self, loop: Processor[Following], stop: threading.Event) -> None:
        super().__init__(name="matcher")
        self._loop, self._stop_event = loop, stop
        self.crashed = False

    def run(self) -> None:
        """Turn until told to stop."""
        try:
            self._loop.run(self._stop_event)
        except Exception:
            log.exception("matcher_crashed")
            self.crashed = True
        finally:
            self._stop_event.set()


async def _dispatch(chosen: Settings, loop: Processor[Following], stop: threading.Event) -> None:
    url = chosen.database.url.get_secret_value()
    sealer = Sealer(setting_values.parse_keys(chosen.sealing.keys.get_secret_value()))
    client = Client(chosen.outbound.allow, f"Millstream/{version('millstream')}", TIMEOUT_S)
    limits = Limits(chosen.deliveries.slots, chosen.deliveries.destination_slots)
    dispatcher = Dispatcher(Store(url), Sender(client, sealer), limits)
    health = HealthServer(
        chosen.health.host,
        chosen.health.port,
        live=lambda: _worst(loop.live(), dispatcher.live()),
        ready=dispatcher.ready,
        degraded=lambda: loop.degraded("matcher"),
    )
    health.start()
    listening = asyncio.create_task(
        wakeups.listen(url, CHANNEL, "notifier-wakeups", lambda _: dispatcher.wake())
    )
    stopping = asyncio.create_task(_stop_with(stop, dispatcher))
    try:
        await dispatcher.run()
    finally:
        stop.set()
        listening.cancel()
        await asyncio.gather(listening, stopping, return_exceptions=True)
        await client.close()
        health.close()


async def _stop_with(stop: threading.Event, dispatcher: Dispatcher) -> None:
    await asyncio.to_thread(stop.wait)
    dispatcher.stop()


def _worst(*checks: tuple[bool, str]) -> tuple[bool, str]:
    return next((check for check in checks if not check[0]), checks[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

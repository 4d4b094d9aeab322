"""The api process: HTTP, intake, relay, projector, republisher and clock, started and drained in order."""

import contextlib
import gc
import os
import socket
import threading

from confluent_kafka import KafkaException
from prometheus_client import Gauge

from services.api import projector, read_tables, republish
from services.api.checking import Checking
from services.api.clock import DatabaseClock
from services.api.core.links import Links
from services.api.definitions import TOPIC as DEFINITIONS
from services.api.door import Door
from services.api.health import Health
from services.api.intake import Intake
from services.api.keys import Keyring
from services.api.listening import HTTP_DRAIN_S, HttpServer
from services.api.live import Live
from services.api.parts import Parts
from services.api.pool import Pool
from services.api.republish import Republisher
from services.api.settings import Settings
from services.runtime import blobs, schemas, telemetry
from services.runtime.container import Files
from services.runtime.entropy import LocalClock
from services.runtime.health import HealthServer
from services.runtime.kafka import Publisher
from services.runtime.outbox import Relay
from services.runtime.processor import run
from services.runtime.processor.letters import Letters
from services.runtime.sealing import Sealer
from services.runtime.setting_values import parse_keys

INTAKE_DRAIN_S = 5.0
RELAY_DRAIN_S = 5.0
PROJECTOR_DRAIN_S = 8.0

PROJECTOR_READY = Gauge(
    "projector_ready", "1 while the read tables follow the log", registry=telemetry.REGISTRY
)


class Server:
    """Everything that runs in the process."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        """Connects to nothing yet; `listener` is bound and listening. Raises SettingsError."""
        url = settings.database.url.get_secret_value()
        self._publisher = Publisher(settings.kafka, f"millstream-api-{socket.gethostname()}-{os.getpid()}")
        letters = Letters(blobs.connect(settings.blobs.url), LocalClock())
        self._relay = Relay(url, "api", self._publisher, letters, serial=frozenset({DEFINITIONS}))
        self._intake = Intake(url, settings.quota, lambda: self._relay.wake(serial=False))
        self._pool = Pool(url)
        self._checking = Checking()
        self._live = Live(url)
        self._clock = DatabaseClock(url)
        self._republisher = Republisher(settings.kafka, url)
        self._processor = run.processor(
            projector.Projector(schemas.codec()),
            settings.kafka,
            settings.database,
            settings.loop,
            settings.blobs,
            write_rows=read_tables.write_rows,
        )
        self._projector_stop = threading.Event()
        self._projector = threading.Thread(
            target=self._processor.run, args=(self._projector_stop,), name="projector", daemon=True
        )
        health = Health(self._pool, self._processor)
        self._health = HealthServer(
            settings.health.host, settings.health.port, health.live, health.ready, health.degraded
        )
        self._http = HttpServer(self._parts(settings), health=health)
        self._http_thread = threading.Thread(
            target=self._http.run, args=([listener],), name="http", daemon=True
        )

    def _parts(self, settings: Settings) -> Parts:
        store = blobs.connect(settings.blobs.url)
        return Parts(
            pool=self._pool,
            keyring=Keyring(self._pool),
            intake=self._intake,
            sealer=Sealer(parse_keys(settings.sealing.keys.get_secret_value())),
            links=Links(parse_keys(settings.links.keys.get_secret_value()), settings.links.ttl_s),
            blobs=store,
            files=Files(store, parse_keys(settings.files.keys.get_secret_value())),
            live=self._live,
            clock=self._clock,
            public_url=settings.api.public_url.rstrip("/"),
            wake_relay=self._relay.wake,
            quota=settings.quota,
            source_tenants=settings.source_tenants.tenants,
            checking=self._checking,
            door=Door(settings.api),
        )

    def _warm_up(self) -> None:
        """A fresh topic's first record takes up to 200 ms: not the first caller's."""
        with contextlib.suppress(KafkaException):
            self._publisher.warm_up(republish.TOPICS)

    def start(self) -> None:
        """Start every thread; database and broker may be away."""
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()
        gc.freeze()  # what was imported stays: the collector need not look at it again
        PROJECTOR_READY.set_function(lambda: self._processor.ready()[0])
        self._health.start()
        self._clock.start()
        self._intake.start()
        self._relay.start()
        self._republisher.start()
        self._projector.start()
        self._http_thread.start()

    def drain(self) -> None:
        """Stop taking requests, answer those in flight, publish what they committed, stop."""
        self._live.close()
        self._http.should_exit = True
        self._http_thread.join(HTTP_DRAIN_S + 2.0)
        self._intake.close(INTAKE_DRAIN_S)
        self._projector_stop.set()
        self._republisher.close()
        self._clock.close()
        self._relay.close(RELAY_DRAIN_S)
        self._publisher.close(1.0)
        self._projector.join(PROJECTOR_DRAIN_S)
        self._pool.close()
        self._checking.close()
        self._health.close()

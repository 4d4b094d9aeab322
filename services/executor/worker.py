"""The worker: takes steps off the queue, runs them in its lanes, and reports how they end."""

import os
import socket

from services.executor.settings import WorkerSettings
from services.executor.steps import STEPS
from services.executor.work.lanes import Lanes
from services.executor.work.reporter import Reporter
from services.executor.work.taking import Taking
from services.runtime import blobs, signals, telemetry
from services.runtime.container import Files
from services.runtime.entropy import LocalClock
from services.runtime.health import HealthServer
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from services.runtime.settings import parse_keys

DRAIN_S = 20.0
GRACE_S = 3.0
FLUSH_S = 2.0

log = telemetry.get_logger()


def main(settings: WorkerSettings) -> int:
    """Run until SIGTERM, then let running steps end for up to DRAIN_S; those that do not are given back.

    Raises BlobsUnavailable when the store's folder cannot be made, KafkaException when the consumer dies.
    """
    stop = signals.install()
    name = f"{socket.gethostname()}-{os.getpid()}"
    publisher = Publisher(settings.kafka, name)
    reporter = Reporter(publisher, codec(), LocalClock())
    sources = {name: url.get_secret_value() for name, url in settings.sources.urls.items()}
    keys = parse_keys(settings.files.keys.get_secret_value())
    files = Files(blobs.connect(settings.blobs.url), keys, settings.files.compression)
    lanes = Lanes(settings.worker.lanes, STEPS, files, sources, reporter)
    taking = Taking(settings.kafka, name, codec(), reporter, lanes, stop)
    health = HealthServer(settings.health.host, settings.health.port, taking.live, taking.ready)
    health.start()
    try:
        taking.run()
    finally:
        drained = lanes.drain(DRAIN_S, GRACE_S)
        left = publisher.close(FLUSH_S)
        health.close()
        log.info("stopped", drained=drained, unsent=left)
    return 0

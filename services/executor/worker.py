"""The worker: takes steps off its two queues, runs them in its lanes, and reports how they end."""

import os
import socket
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from importlib.metadata import version

from services.contracts.commands import StepControl
from services.executor.calls.outbound import Caller, Outbound
from services.executor.settings import WorkerSettings
from services.executor.steps import CALLS, STEPS
from services.executor.steps.source import Sources
from services.executor.work import log_folder
from services.executor.work.calls import Calls
from services.executor.work.control import Control
from services.executor.work.hands import Hands
from services.executor.work.lanes import Lanes
from services.executor.work.logs import Logs
from services.executor.work.reporter import Reporter
from services.executor.work.slots import Bounds, Slots
from services.executor.work.store import StoreProbe
from services.executor.work.taking import LONG, SHORT, Taking
from services.executor.work.works import Works
from services.runtime import blobs, signals, telemetry, threads
from services.runtime.container import Files
from services.runtime.entropy import LocalClock
from services.runtime.health import HealthServer
from services.runtime.kafka import Publisher
from services.runtime.processor.letters import Letters
from services.runtime.schemas import codec
from services.runtime.setting_values import parse_keys, parse_secrets

DRAIN_S = 20.0
GRACE_S = 3.0
FLUSH_S = 2.0

log = telemetry.get_logger()


def main(settings: WorkerSettings) -> int:
    """Run until SIGTERM, then let running steps end for up to DRAIN_S; those that do not are given back.
    1 when a thread died.

    Raises BlobsUnavailable when the store's folder cannot be made, KafkaException when a consumer dies.
    """
    stop = signals.install()
    failed = threads.stop_on_crash(stop)
    Worker(settings, stop).run()
    return 1 if failed.is_set() else 0


class Worker:
    """The parts of one worker process. Short and long steps share nothing but the reporter and the control:
    neither ever waits for the other."""

    def __init__(self, settings: WorkerSettings, stop: threading.Event) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}"
        self._stop = stop
        self._publisher = Publisher(settings.kafka, name)
        self._control = Control(settings.kafka, name, codec(), self._revoke)
        keys = parse_keys(settings.files.keys.get_secret_value())
        store = blobs.connect(settings.blobs.url)
        letters = Letters(store, LocalClock())
        self._reporter = Reporter(self._publisher, codec(), LocalClock(), letters)
        self._store = StoreProbe(store, name)
        files = Files(store, keys, settings.files.compression)
        urls = {name: url.get_secret_value() for name, url in settings.sources.urls.items()}
        sources = Sources(urls, settings.source_tenants.tenants)
        folder = settings.worker.log_folder
        logs = Logs(folder, store, urls.values(), LocalClock())
        log_folder.start(folder, timedelta(days=settings.worker.log_days), LocalClock(), stop)
        self._caller = Caller(settings.outbound.allow, f"Millstream/{version('millstream')}")
        outbound = Outbound(self._caller, parse_secrets(settings.secrets.secrets.get_secret_value()))
        bounds = Bounds(
            settings.worker.calls, settings.worker.calls_per_destination, settings.worker.calls_per_tenant
        )
        counts = {SHORT: ("short", settings.worker.lanes), LONG: ("long", settings.worker.long_lanes)}
        self._hands = {
            topic: self._made(
                word, count, Works(word, files, sources, self._reporter, logs, outbound), Slots(bounds)
            )
            for topic, (word, count) in counts.items()
        }
        self._takings = {
            topic: Taking(
                topic, settings.kafka, name, codec(), self._reporter, hands, self._control, self._stop
            )
            for topic, hands in self._hands.items()
        }
        self._failures: list[BaseException] = []
        self._health = HealthServer(settings.health.host, settings.health.port, self.live, self.ready)

    def run(self) -> None:
        """Until `stop` is set or a consumer dies, which is raised."""
        self._control.start()
        self._store.start()
        self._health.start()
        threads = [
            threading.Thread(target=self._take, args=(taking,), name=topic, daemon=True)
            for topic, taking in self._takings.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        drained = self._drain()
        self._caller.close()
        left = self._publisher.close(FLUSH_S)
        self._control.close()
        self._store.close()
        self._health.close()
        log.info("stopped", drained=drained, unsent=left)
        if self._failures:
            raise self._failures[0]

    def live(self) -> tuple[bool, str]:
        """Whether all loops turn."""
        if not self._control.live():
            return False, "the reader of step.control does not turn"
        return _all(taking.live() for taking in self._takings.values())

    def ready(self) -> tuple[bool, str]:
        """Whether both queues are read, the broker takes what is said, and the blob store files."""
        if self._reporter.halted:
            return False, self._reporter.halted
        if not self._control.caught_up.is_set():
            return False, "step.control is not read to its end yet"
        return _all([*(taking.ready() for taking in self._takings.values()), self._store.ready()])

    def _made(self, name: str, lanes: int, works: Works, slots: Slots) -> Hands:
        calls = Calls(name, CALLS, works, self._caller, slots)
        return Hands(works, Lanes(name, lanes, STEPS, works), calls)

    def _take(self, taking: Taking) -> None:
        try:
            taking.run()
        except BaseException as error:
            log.exception("taking_failed")
            self._failures.append(error)
        finally:
            self._stop.set()

    def _drain(self) -> bool:
        deadline = time.monotonic() + DRAIN_S
        left = 0
        for hands in self._hands.values():
            left += not hands.drain(max(0.0, deadline - time.monotonic()), GRACE_S)
        return not left

    def _revoke(self, control: StepControl) -> None:
        for hands in self._hands.values():
            hands.works.revoke(control)


def _all(answers: Iterable[tuple[bool, str]]) -> tuple[bool, str]:
    """Good when all are; the details of all."""
    told = [*answers]
    return all(good for good, _ in told), "; ".join(detail for _, detail in told)

"""Puts a loop together from settings: the composition that every service with a loop shares."""

import gc
import os
import socket
from typing import Any, TypeVar

from services.runtime import blobs, settings
from services.runtime.entropy import LocalClock
from services.runtime.processor.handler import Handler
from services.runtime.processor.kafka import KafkaLog
from services.runtime.processor.letters import Letters
from services.runtime.processor.loop import Processor
from services.runtime.processor.postgres import PostgresStore, WriteRows

S = TypeVar("S")

GARBAGE_THRESHOLD = 50_000
"""A batch makes tens of thousands of objects and hardly a cycle: at the default of 700 the collector takes a
fifth of the processor's time, looking again and again at the states in memory."""


def processor(
    handler: Handler[S],
    kafka: settings.Kafka,
    database: settings.Database,
    loop: settings.Loop,
    claims: settings.Blobs,
    *,
    outputs: tuple[str, ...] = (),
    write_rows: WriteRows | None = None,
) -> Processor[S]:
    """The loop on Kafka and PostgreSQL. The schema is the handler's name; see Processor for `outputs`.

    Raises BlobsUnavailable when the store's folder cannot be made.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    client_id = f"millstream-{handler.name}-{socket.gethostname()}-{os.getpid()}"
    store = PostgresStore(database.url.get_secret_value(), handler.name, write_rows)
    log: Any = KafkaLog(kafka, handler.name, client_id)
    letters = Letters(blobs.connect(claims.url), LocalClock())
    return Processor(handler, store, log, letters, outputs, cache_bytes=loop.cache_bytes)

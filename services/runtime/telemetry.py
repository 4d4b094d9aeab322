"""Logs and metrics of a process.

Logs are JSON lines on stdout, one object each, with `service`, `level`, `at` (UTC) and `action`: the stable
name of what happened, given as the first argument, never a sentence: `log.info("outbox_published", count=3)`.
Lines of libraries that use the standard logging module take the same form.
"""

import logging
import sys

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from services.runtime.structured import structlog

REGISTRY = CollectorRegistry(auto_describe=True)
"""The process's metrics; declare a metric with `registry=telemetry.REGISTRY`."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def configure(service: str) -> None:
    """Set up logging once, at the start of `__main__`; `service` names the process (`executor-manager`)."""

    def add_service(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {"service": service, **event}

    shared: list[structlog.typing.Processor] = [
        add_service,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("action"),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(default=str)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """A logger for a module; it may be created before `configure` ran."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def metrics_text() -> bytes:
    """The registry in the Prometheus text format, for /metrics."""
    return generate_latest(REGISTRY)

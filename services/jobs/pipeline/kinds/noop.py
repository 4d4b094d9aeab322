"""NOOP: nothing (S2 2.13). Its hooks are the point of it."""

from services.jobs.fields import Fields
from services.jobs.pipeline.kinds.kind import Kind
from services.jobs.pipeline.work import Work

TIMEOUT_S = 600
MAX_ATTEMPTS = 5


def _read(parameters: Fields) -> Work:
    return Work({})


NOOP = Kind(read=_read, timeout_s=TIMEOUT_S, max_attempts=MAX_ATTEMPTS)

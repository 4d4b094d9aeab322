"""API: one HTTP request (S3 3.4-3.10). docs/pipelines.md has the parameters."""

from services.jobs.fields import Fields
from services.jobs.pipeline import calls
from services.jobs.pipeline.kinds.kind import Kind
from services.jobs.pipeline.work import Work

TIMEOUT_S = 600
MAX_ATTEMPTS = 5


def _read(parameters: Fields) -> Work:
    return calls.read(parameters)


API = Kind(read=_read, keys=calls.KEYS, timeout_s=TIMEOUT_S, max_attempts=MAX_ATTEMPTS, secrets=True)

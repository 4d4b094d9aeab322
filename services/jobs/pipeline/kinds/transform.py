"""TRANSFORM: a result made of earlier results and values of the request.

step_type: TRANSFORM
parameters:
  output:
    order: ${order}
    total: $.steps.fetch.result.body.total
    large: $($.steps.fetch.result.body.total > 1000)
"""

from services.jobs.fields import Fields
from services.jobs.pipeline.kinds.kind import Kind
from services.jobs.pipeline.work import Place, Work

TIMEOUT_S = 600
MAX_ATTEMPTS = 5


def _read(parameters: Fields) -> Work:
    output = parameters.get("output")
    at = parameters.pointer("output")
    if output is None:
        parameters.faults.add(at, "expected a value with expressions or placeholders, found nothing")
    return Work({"output": output}, (Place("data", at, output),))


TRANSFORM = Kind(read=_read, keys=("output",), timeout_s=TIMEOUT_S, max_attempts=MAX_ATTEMPTS)

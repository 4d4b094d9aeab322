"""What the manager counts."""

from prometheus_client import Counter

from services.runtime.telemetry import REGISTRY

ACCEPTED = Counter("jobs_accepted", "Requests that became executions", registry=REGISTRY)
STALE = Counter(
    "stale_reports", "Reports and outcomes of takes that own no attempt", ["record"], registry=REGISTRY
)

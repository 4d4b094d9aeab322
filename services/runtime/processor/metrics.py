"""What the loop counts."""

from prometheus_client import Counter, Gauge

from services.runtime.telemetry import REGISTRY

RECORDS = Counter("loop_records", "Records handled", ["topic"], registry=REGISTRY)
BATCHES = Counter("loop_batches", "Batches committed", registry=REGISTRY)
DEAD_LETTERS = Counter("dlq_records", "Records sent to a dead-letter topic", ["topic"], registry=REGISTRY)
FENCED = Counter(
    "fenced_writes", "Batches refused because another owner took an index over", registry=REGISTRY
)
CONTENDED = Counter(
    "loop_contended", "Batches decided again because their rows wanted what others have", registry=REGISTRY
)
PAUSES = Counter("loop_backpressure", "Times the loop paused because something was away", registry=REGISTRY)
REJOINS = Counter("loop_rejoins", "Clients replaced because the group had lost them", registry=REGISTRY)
UNREAD = Gauge(
    "loop_oldest_unread_seconds",
    "For how long a record of an owned index has been seen to lie unread",
    registry=REGISTRY,
)
HALTED = Gauge(
    "loop_halted", "1 while the broker refuses what only the operator can change", registry=REGISTRY
)
FAILED_TIMERS = Counter("loop_failed_timers", "Timers that could not be processed", registry=REGISTRY)
OWNED = Gauge("loop_indexes_owned", "Indexes owned now", registry=REGISTRY)

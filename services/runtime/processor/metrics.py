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
OWNED = Gauge("loop_indexes_owned", "Indexes owned now", registry=REGISTRY)

"""A worker's parts: `taking` records off the queue, `lanes` to run them, a `reporter` to the manager."""

LONG_TOPIC = "step.requested.long"
CONTROL_TOPIC = "step.control"

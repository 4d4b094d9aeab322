"""What a broker's refusal of a record means: try again, do without the record, or wait for the operator."""

from enum import Enum

from confluent_kafka import KafkaError
from prometheus_client import Counter

from services.runtime.telemetry import REGISTRY

REFUSED = Counter(
    "producer_refused",
    "Records that the broker refused for a reason that waiting does not mend",
    ["topic", "reason"],
    registry=REGISTRY,
)


class Refusal(Enum):
    """What to do about a record that was not acknowledged."""

    AGAIN = "again"
    """The broker is away or slow: produce it again."""
    RECORD = "record"
    """This record can never be stored, its neighbours can: it becomes a dead letter."""
    TOPIC = "topic"
    """Nothing can be stored there until the operator changes something."""


_RECORD = {
    KafkaError.MSG_SIZE_TOO_LARGE: "too_large",
    KafkaError.RECORD_LIST_TOO_LARGE: "too_large",
    KafkaError.INVALID_RECORD: "invalid_record",
    KafkaError._BAD_MSG: "invalid_record",
}
_MISSING, _FORBIDDEN = "unknown_topic", "not_authorised"
_TOPIC = {
    KafkaError._UNKNOWN_TOPIC: _MISSING,
    KafkaError._UNKNOWN_PARTITION: _MISSING,
    KafkaError.UNKNOWN_TOPIC_OR_PART: _MISSING,
    KafkaError.TOPIC_EXCEPTION: _MISSING,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _FORBIDDEN,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _FORBIDDEN,
    KafkaError.POLICY_VIOLATION: "policy_violation",
}
_MEND = {
    _MISSING: "run `millstream topics apply`",
    _FORBIDDEN: "give this process' user the right to write to it",
}


def meaning(error: KafkaError) -> Refusal:
    """Sort a delivery's error by its code."""
    if error.code() in _RECORD:
        return Refusal.RECORD
    return Refusal.TOPIC if error.code() in _TOPIC else Refusal.AGAIN


def count(topic: str, error: KafkaError) -> None:
    """Count a refusal that waiting does not mend."""
    code = error.code()
    if reason := _RECORD.get(code) or _TOPIC.get(code):
        REFUSED.labels(topic, reason).inc()


def advice(topic: str, error: KafkaError) -> str:
    """What stands in the way and what to do, for a log line, a probe and `millstream doctor`."""
    reason = _TOPIC.get(error.code(), "refused")
    mend = _MEND.get(reason, "see the broker's log")
    return f"{topic}: expected the broker to take records, found {reason} ({error.str()}); {mend}"

"""What a broker's refusal means, by the codes that a real one sends."""

import pytest
from confluent_kafka import KafkaError

from services.runtime.refusals import Refusal, advice, meaning


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, Refusal.RECORD),
        (KafkaError.RECORD_LIST_TOO_LARGE, Refusal.RECORD),
        (KafkaError.INVALID_RECORD, Refusal.RECORD),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Refusal.TOPIC),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, Refusal.TOPIC),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Refusal.TOPIC),
        (KafkaError._UNKNOWN_TOPIC, Refusal.TOPIC),
        (KafkaError._MSG_TIMED_OUT, Refusal.AGAIN),
        (KafkaError.NOT_ENOUGH_REPLICAS, Refusal.AGAIN),
        (KafkaError._ALL_BROKERS_DOWN, Refusal.AGAIN),
    ],
)
def test_a_refusal_is_sorted_by_what_can_be_done_about_it(code: int, expected: Refusal) -> None:
    assert meaning(KafkaError(code)) is expected


def test_a_missing_right_is_told_with_the_topic_and_the_mend() -> None:
    told = advice("execution.events", KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert told.startswith("execution.events: expected the broker to take records, found not_authorised")
    assert "right to write" in told

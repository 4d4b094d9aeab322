"""What the broker says of topics, asked again and again by a process that runs for long."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from services.runtime.kafka import REQUEST_TIMEOUT_S, Admin, TopicFacts, topic_facts
from services.runtime.settings import Kafka

_OUTDATED = frozenset(
    {
        KafkaError._NOENT,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)


class Topics:
    """An admin client that is replaced after a request of it has failed. Whoever makes one closes it; for one
    thread.

    A client whose broker stood still may look for its controller for ever ("Failed while waiting for
    controller"), so one that has failed is asked nothing more.
    """

    def __init__(self, settings: Kafka, client_id: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """`timeout_s` bounds each request."""
        self._settings, self._client_id, self._timeout_s = settings, client_id, timeout_s
        self._admin = Admin(settings, client_id)
        self._has_failed = False

    def close(self) -> None:
        """Give up what is under way; a call after this raises RuntimeError."""
        self._admin.close()

    def facts(self, names: Iterable[str]) -> Mapping[str, TopicFacts]:
        """Of the topics that exist. Raises KafkaException when the broker cannot be reached."""
        with self._client() as client:
            return topic_facts(client, names, self._timeout_s)

    def offsets(self, spots: Iterable[tuple[str, int]], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        """The first (`OffsetSpec.earliest()`) or the end offset (`latest()`) of each partition.

        Raises KafkaException when the broker cannot be reached.
        """
        asked = {*spots}
        with self._client() as client:
            try:
                return self._offsets(client, asked, spec)
            except KafkaException as error:
                if error.args[0].code() not in _OUTDATED:
                    raise
            # The broker was away, and for minutes the client keeps what it knew of the topics, or that they
            # had no leader: describing them is news to it.
            topic_facts(client, {topic for topic, _ in asked}, self._timeout_s)
            return self._offsets(client, asked, spec)

    def _offsets(
        self, client: Admin, spots: Iterable[tuple[str, int]], spec: OffsetSpec
    ) -> dict[tuple[str, int], int]:
        asked = dict.fromkeys((TopicPartition(*spot) for spot in spots), spec)
        answers: Any = client.list_offsets(asked, request_timeout=self._timeout_s) if asked else {}
        return {(spot.topic, spot.partition): answer.result().offset for spot, answer in answers.items()}

    @contextmanager
    def _client(self) -> Iterator[Admin]:
        if self._has_failed:
            self._admin.close()
            self._admin = Admin(self._settings, self._client_id)
        self._has_failed = True
        yield self._admin
        self._has_failed = False

"""How every process talks to the broker: one producer, consumer and admin configuration, and `Publisher`."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import (
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
)
from confluent_kafka.admin import AdminClient

from services.runtime.settings import Kafka

Config = dict[str, str | int | float | bool | logging.Logger]
Headers = Sequence[tuple[str, bytes]]
OnDelivery = Callable[[KafkaError | None, Message | None], None]
Unsent = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record."""

POLL_S = 0.1
LOGGER = logging.getLogger("librdkafka")  # its lines would otherwise go to stderr, past our log
REQUEST_TIMEOUT_S = 10.0
SESSION_S = 6.0
"""After so long without a sign of a member its group gives its partitions to others."""


class ProducerFull(Exception):
    """The local queue of unsent records is full: wait and publish the same record again (back-pressure)."""


class PublishFailed(Exception):
    """The broker did not acknowledge the record; it may or may not be in the log, so publish it again."""


@dataclass(frozen=True)
class Delivered:
    """Where the broker stored a record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class TopicFacts:
    """What the broker says of one topic: its UUID (another one means another log) and partition count."""

    uuid: str
    partition_count: int


def connection(settings: Kafka) -> Config:
    """Where the broker is and how to sign in to it: the part that every client has."""
    config: Config = {"bootstrap.servers": settings.bootstrap_servers}
    if settings.security__protocol == "PLAINTEXT":
        return config
    files = {
        "ssl.ca.location": settings.security__ca,
        "ssl.certificate.location": settings.security__certificate,
        "ssl.key.location": settings.security__key,
    }
    config |= {"security.protocol": settings.security__protocol}
    config |= {name: str(path) for name, path in files.items() if path is not None}
    if password := settings.security__key_password.get_secret_value():
        config["ssl.key.password"] = password
    return config | (_sasl(settings) if settings.security__protocol == "SASL_SSL" else {})


def _sasl(settings: Kafka) -> Config:
    if settings.security__mechanism != "OAUTHBEARER":
        return {
            "sasl.mechanism": settings.security__mechanism,
            "sasl.username": settings.security__username,
            "sasl.password": settings.security__password.get_secret_value(),
        }
    return {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": settings.security__oauth_token_url,
        "sasl.oauthbearer.client.id": settings.security__oauth_client_id,
        "sasl.oauthbearer.client.secret": settings.security__oauth_client_secret.get_secret_value(),
        "sasl.oauthbearer.scope": settings.security__oauth_scope,
    }


def producer_config(settings: Kafka, client_id: str) -> Config:
    """The configuration of every producer.

    murmur2_random is what the Java and Python-only clients use: with librdkafka's own default the same key
    would lie on different partitions depending on who wrote it.
    """
    return {
        **connection(settings),
        "client.id": client_id,
        "logger": LOGGER,
        "log.connection.close": False,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "linger.ms": 0,  # librdkafka batches what comes while a request is on its way; waiting adds time only
        "compression.type": "lz4",
        "message.timeout.ms": 20_000,
        # A dead letter is its record, which may be as large as its topic allows, and the reason.
        "message.max.bytes": 2_000_000,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 131_072,
        "topic.metadata.refresh.interval.ms": 30_000,
        # Shorter than message.timeout.ms, so that a topic that is missing is told as such.
        "topic.metadata.propagation.max.ms": 5_000,
        "allow.auto.create.topics": False,
        "reconnect.backoff.max.ms": 1_000,
    }


def consumer_config(settings: Kafka, client_id: str, group_id: str) -> Config:
    """The configuration of every consumer.

    Range assignment gives one member the same partition index of all its topics. The 6 s session makes the
    partitions of a killed process move within about 7 s; under the protocol `consumer` (KIP-848) the broker
    sets it. `auto.offset.reset=error` because a position outside the log is a fact to be handled, never a
    reason to skip or repeat silently.
    """
    return {
        **_MEMBERSHIP[settings.group_protocol],
        **connection(settings),
        "client.id": client_id,
        "logger": LOGGER,
        "log.connection.close": False,
        "group.id": group_id,
        "max.poll.interval.ms": 300_000,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
    }


_MEMBERSHIP: Mapping[str, Config] = {
    "classic": {
        "group.protocol": "classic",
        "partition.assignment.strategy": "range",
        "session.timeout.ms": int(SESSION_S * 1000),
        "heartbeat.interval.ms": 1_500,
    },
    "consumer": {"group.protocol": "consumer", "group.remote.assignor": "range"},
}


class Admin(AdminClient):
    """An admin client; connects lazily, so a broker that is away shows at the first call.

    Whoever makes one closes it, by `with` or `close`, on the thread that used it. Its answers are set by a
    thread of its own: were that the last to hold an answer, and a failed one holds the frames it was raised
    through, the client in those would be freed on its own thread, where librdkafka aborts the process.
    """

    def __init__(self, settings: Kafka, client_id: str) -> None:
        config: Config = {**connection(settings), "client.id": client_id}
        super().__init__(config | {"logger": LOGGER})  # type: ignore[arg-type]  # the stubs forget `logger`

    def close(self) -> None:
        """Give up what is under way and end its threads; a call after this raises RuntimeError."""
        self.__exit__(None, None, None)


def topic_facts(
    client: AdminClient, names: Iterable[str], timeout_s: float = REQUEST_TIMEOUT_S
) -> Mapping[str, TopicFacts]:
    """UUID and partition count of the topics that exist; blocks at most `timeout_s`.

    Raises KafkaException when the broker cannot be reached.
    """
    futures = client.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
    found: dict[str, TopicFacts] = {}
    for name, future in futures.items():
        try:
            described = future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise
        found[name] = TopicFacts(str(described.topic_id), len(described.partitions))
    return found


class Batch:
    """Records that were produced together."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._answers = itertools.count(1)  # the step of which is atomic
        self._fault = ""
        self._ended = threading.Event()
        if not count:
            self._ended.set()

    def fault(self, timeout_s: float) -> str:
        """Empty once the broker has acknowledged every record; else why not, as far as known by then."""
        return self._fault if self._ended.wait(timeout_s) else "the broker has not answered in time"

    def told(self, error: KafkaError | None, _: object) -> None:
        """Count one answer."""
        if error is not None:
            self._fault = error.str()
        if next(self._answers) == self._count:
            self._ended.set()


class Publisher:
    """A producer, one thread that serves its callbacks, and a future per record; safe from any thread."""

    def __init__(self, settings: Kafka, client_id: str) -> None:
        self._config = producer_config(settings, client_id)
        self._producer = Producer(self._config)
        self._renewing = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="publisher", daemon=True)
        self._thread.start()

    def warm_up(self, topics: Iterable[str], timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """Fetch metadata and open connections now, so that the first request does not wait for them.

        Raises KafkaException when the broker cannot be reached; serving may begin all the same.
        """
        for topic in topics:
            self._producer.list_topics(topic, timeout_s)

    def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int = -1
    ) -> Future[Delivered]:
        """Queue one record; never blocks. `value` None is a tombstone; `partition` -1 goes by the key.

        A record that no broker would take (too large) raises KafkaException at once.

        The future ends with Delivered or PublishFailed within message.timeout.ms. Raises ProducerFull.
        Callbacks of the future run on the publisher's thread and must be quick.
        """
        future: Future[Delivered] = Future()

        def on_delivery(error: KafkaError | None, message: Message | None) -> None:
            if error is None and message is not None:
                future.set_result(
                    Delivered(message.topic() or "", message.partition() or 0, message.offset() or 0)
                )
            else:
                future.set_exception(PublishFailed(f"{topic}: {error.str() if error else 'no answer'}"))

        self.send(topic, key, value, headers, on_delivery, partition)
        return future

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        on_delivery: OnDelivery,
        partition: int = -1,
    ) -> None:
        """`publish` for thousands of records a second: not a future, but a call on the publisher's thread."""
        producer = self._producer
        try:
            producer.produce(
                topic,
                value=value,
                key=key,
                headers=list(headers),
                partition=partition,
                on_delivery=on_delivery,
            )
        except BufferError:
            raise ProducerFull(
                "the queue of unsent records is full; try again when the broker answers"
            ) from None
        except KafkaException as error:
            if not error.args[0].fatal():
                raise
            self._renew(producer)
            on_delivery(error.args[0], None)

    def publish_all(self, topic: str, records: Sequence[Unsent]) -> Batch:
        """Queue records of one topic, in order; never blocks. Raises ProducerFull and KafkaException: then
        those before the one that was refused may be sent all the same."""
        batch = Batch(len(records))
        for key, value, headers in records:
            self.send(topic, key, value, headers, batch.told)
        return batch

    def _renew(self, failed: Producer) -> None:
        """A producer in a fatal state takes nothing any more; what it holds is answered as failed."""
        with self._renewing:
            if self._producer is failed:
                self._producer = Producer(self._config)
                failed.purge()
                failed.flush(1.0)

    def close(self, timeout_s: float) -> int:
        """Flush, stop the thread, drop what is left; returns how many records got no answer."""
        left = self._producer.flush(timeout_s)
        self._closing.set()
        self._thread.join(1.0)
        self._producer.purge()
        self._producer.poll(0)
        self._producer.close()
        return left

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_S)

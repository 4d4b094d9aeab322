"""After the log of a topic we write was lost and made anew: publish again what it alone held.

The topic's UUID is compared at start and every 30 s. Another UUID puts every request or command without an
answer, or the current revision of every definition, into the outbox, with the same ids; then the new UUID is
kept.
"""

import threading
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg2
from confluent_kafka import KafkaException

from services.api import commands, definitions
from services.contracts import envelope
from services.contracts.commands import JobRequested
from services.runtime import outbox, schemas, settings, telemetry
from services.runtime.database import Failure, classify, connect
from services.runtime.topics import Topics

CHECK_S = 30.0
RETRY_S = 2.0
PAGE = 500
TOPICS = ("job.requested", commands.TOPIC, definitions.TOPIC)

log = telemetry.get_logger()


class Republisher:
    """One thread; several api processes may run it at once."""

    def __init__(self, kafka_settings: settings.Kafka, database_url: str) -> None:
        self._kafka = kafka_settings
        self._url = database_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="republish", daemon=True)

    def start(self) -> None:
        """Begin; broker and database may be away."""
        self._thread.start()

    def close(self) -> None:
        """Stop soon; a check that is under way is given up with the process."""
        self._stop.set()

    def _run(self) -> None:
        wait_s = 0.0
        with closing(Topics(self._kafka, "millstream-api-republish")) as topics:
            while not self._stop.wait(wait_s):
                wait_s = CHECK_S if self._check(topics) else RETRY_S

    def _check(self, topics: Topics) -> bool:
        try:
            facts = topics.facts(TOPICS)
            compare(self._url, {name: fact.uuid for name, fact in facts.items()})
        except KafkaException:
            return False
        except psycopg2.Error as error:
            if classify(error) is not Failure.BACKPRESSURE:
                raise
            return False
        return len(facts) == len(TOPICS)


def compare(database_url: str, uuids: Mapping[str, str]) -> Mapping[str, int]:
    """Republish for each topic whose UUID is not the kept one: topic -> records. Raises psycopg2.Error."""
    found: dict[str, int] = {}
    connection = connect(database_url, "millstream-api-republish")
    try:
        for topic, uuid in uuids.items():
            with connection, connection.cursor() as cursor:
                if _is_new_log(cursor, topic, uuid):
                    found[topic] = _publish_again(cursor, topic)
                    log.warning("log_lost", topic=topic, records=found[topic])
    finally:
        connection.close()
    return found


def _is_new_log(cursor: Any, topic: str, uuid: str) -> bool:
    """Keep the UUID; True when another one was kept. The row's lock lets one process of several see it."""
    cursor.execute(
        "INSERT INTO api.published_topic VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING name", (topic, uuid)
    )
    if cursor.fetchone():
        return False
    cursor.execute(
        "UPDATE api.published_topic SET uuid = %s WHERE name = %s AND uuid <> %s RETURNING name",
        (uuid, topic, uuid),
    )
    return cursor.fetchone() is not None


def _publish_again(cursor: Any, topic: str) -> int:
    if topic == definitions.TOPIC:
        return definitions.publish_again(cursor)
    if topic == commands.TOPIC:
        return commands.publish_again(cursor)
    count, after = 0, ""
    while page := _unanswered(cursor, after):
        outbox.add(cursor, "api", [_record(value) for _, value in page])
        count, after = count + len(page), page[-1][0]
    return count


def _unanswered(cursor: Any, after: str) -> list[tuple[str, bytes]]:
    cursor.execute(
        "SELECT execution_id, record FROM api.job_request"
        " WHERE record IS NOT NULL AND execution_id > %s ORDER BY execution_id LIMIT %s",
        (after, PAGE),
    )
    return [(id, bytes(value)) for id, value in cursor.fetchall()]


def _record(value: bytes) -> envelope.Outgoing:
    request = schemas.codec().decode("job.requested", value)
    assert isinstance(request, JobRequested)
    return envelope.command(request, value)

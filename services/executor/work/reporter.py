"""What a worker tells the manager, each word acknowledged by the broker where the protocol needs it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaException

from services.contracts import envelope
from services.contracts.codec import Codec
from services.contracts.envelope import Outgoing
from services.executor.steps.outcome import Fail, Outcome
from services.executor.steps.step import Totals
from services.executor.work.take import Take
from services.runtime import telemetry
from services.runtime.entropy import Clock
from services.runtime.kafka import Delivered, ProducerFull, Publisher, PublishFailed

PATIENCE_S = 0.2

log = telemetry.get_logger()

GivingUp = Callable[[], bool]


class Reporter:
    """Publishes reports and outcomes; safe from any thread."""

    def __init__(self, publisher: Publisher, codec: Codec, clock: Clock) -> None:
        self._publisher = publisher
        self._codec = codec
        self._clock = clock
        self._pause = threading.Event()  # never set: its `wait` is a pause

    def claim(self, take: Take) -> Outgoing:
        """The record that claims the attempt; publish it with `acknowledged`."""
        record = take.report("claim", self._clock.now())
        return envelope.command(record, self._codec.encode(record))

    def tell(self, take: Take, kind: str, totals: Totals | None = None, detail: str | None = None) -> None:
        """A heartbeat or part, without waiting: the next one makes up for a lost one."""
        record = take.report(kind, self._clock.now(), totals, detail)
        try:
            self._publish(envelope.command(record, self._codec.encode(record)))
        except ProducerFull:
            log.warning("report_dropped", kind=kind, take=take.take_id)

    def finish(self, take: Take, outcome: Outcome, giving_up: GivingUp) -> bool:
        """Publish the end of a take until it is acknowledged, however long the broker is away."""
        record = take.outcome(outcome, self._clock.now())
        try:
            return self.acknowledged([envelope.command(record, self._codec.encode(record))], giving_up)
        except KafkaException as error:  # no broker would take a record of this size
            log.error("outcome_refused", take=take.take_id, error=str(error))
            message = "the list of files is too large for one record; ask for fewer batches"
            return self.finish(take, Fail("outcome_too_large", message), giving_up)

    def acknowledged(self, records: Sequence[Outgoing], giving_up: GivingUp) -> bool:
        """Publish records, again and again those that fail, until the broker has them all; False: gave up.

        Raises KafkaException for a record that can never be sent.
        """
        waiting = [*records]
        while waiting:
            futures = [(record, self._sent(record, giving_up)) for record in waiting]
            waiting = [record for record, future in futures if not _delivered(future, giving_up)]
            if waiting and giving_up():
                return False
        return True

    def _sent(self, record: Outgoing, giving_up: GivingUp) -> Future[Delivered] | None:
        while not giving_up():
            try:
                return self._publish(record)
            except ProducerFull:
                self._pause.wait(PATIENCE_S)
        return None

    def _publish(self, record: Outgoing) -> Future[Delivered]:
        return self._publisher.publish(record.topic, record.key, record.value, record.headers)


def _delivered(future: Future[Delivered] | None, giving_up: GivingUp) -> bool:
    while future is not None:
        try:
            future.result(PATIENCE_S)
        except PublishFailed as error:
            log.warning("publish_failed", error=str(error))
            return False
        except TimeoutError:
            if giving_up():
                return False
        else:
            return True
    return False

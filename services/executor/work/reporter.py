"""What a worker tells the manager, each word acknowledged by the broker where the protocol needs it."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from confluent_kafka import KafkaError, KafkaException, Message

from services.contracts import envelope
from services.contracts.codec import Codec
from services.contracts.commands import StepOutcome, StepReport
from services.contracts.envelope import Outgoing
from services.executor.steps.outcome import Fail, Outcome
from services.executor.steps.step import Totals
from services.executor.work.ended import Ended
from services.executor.work.take import NOTHING_YET, Take
from services.runtime import refusals, telemetry
from services.runtime.entropy import Clock
from services.runtime.kafka import OnDelivery, ProducerFull, Publisher
from services.runtime.processor.letters import Letters, note
from services.runtime.refusals import Refusal

PATIENCE_S = 0.2
# Below what the topic takes (1 MiB with headers), so that no broker ever refuses an outcome.
OUTCOME_BYTES_MAX = 1_000_000
TOO_LARGE = Fail("outcome_too_large", "the list of files is too large for one record; ask for fewer batches")

log = telemetry.get_logger()

Acknowledged = Callable[[], None]
GivingUp = Callable[[], bool]


class Reporter:
    """Publishes reports and outcomes; safe from any thread."""

    def __init__(self, publisher: Publisher, codec: Codec, clock: Clock, letters: Letters) -> None:
        self.halted = ""
        """Why the broker takes nothing of some topic until the operator changes something; empty: it does."""
        self._publisher = publisher
        self._letters = letters
        self._codec = codec
        self._clock = clock
        self._ended = Ended()
        self._unsent: deque[tuple[Outgoing, Acknowledged]] = deque()

    def now(self) -> datetime:
        """By the worker's clock."""
        return self._clock.now()

    def claim(self, take: Take, began_at: float) -> Outgoing:
        """The record that claims the attempt of a take that begins, or began, at this monotonic instant."""
        return self._record(take.report("claim", self._clock.now()), began_at - take.came_at)

    def tell(self, take: Take, kind: str, totals: Totals = NOTHING_YET, detail: str | None = None) -> None:
        """A heartbeat or part, without waiting: the next one makes up for a lost one."""
        try:
            self._send(self._record(take.report(kind, self._clock.now(), totals, detail)), _unheard)
        except ProducerFull:
            log.warning("report_dropped", kind=kind, take=take.take_id)

    def finish(self, take: Take, began_at: float, outcome: Outcome, acknowledged: Acknowledged) -> None:
        """Publish the end of a take; see `claim` and `deliver`."""
        waited_s = began_at - take.came_at
        record = self._record(take.outcome(outcome, self._clock.now()), waited_s)
        if len(record.value or b"") > OUTCOME_BYTES_MAX:
            log.error("outcome_too_large", take=take.take_id, bytes=len(record.value or b""))
            record = self._record(take.outcome(TOO_LARGE, self._clock.now()), waited_s)

        def ended() -> None:
            self._ended.add(take.request.attempt_id, record)
            acknowledged()

        self.deliver(record, ended)

    def repeat(self, attempt_id: str, acknowledged: Acknowledged) -> bool:
        """Publish the outcome of an attempt once more, if it has ended in this process (work/ended.py)."""
        record = self._ended.get(attempt_id)
        if record is not None:
            self.deliver(record, acknowledged)
        return record is not None

    def deliver(self, record: Outgoing, acknowledged: Acknowledged) -> None:
        """Publish without waiting, again whenever it fails, however long the broker is away.

        `acknowledged` is called on the publisher's thread once the broker has the record.
        """

        def on_delivery(error: KafkaError | None, _: Message | None) -> None:
            if error is None:
                if self.halted.startswith(f"{record.topic}:"):
                    self.halted = ""
                acknowledged()
                return
            self._refused(record, error)
            self._unsent.append((record, acknowledged))

        try:
            self._send(record, on_delivery)
        except ProducerFull:
            self._unsent.append((record, acknowledged))
        except KafkaException as error:
            on_delivery(error.args[0], None)

    def bury(self, letter: Outgoing, acknowledged: Acknowledged) -> None:
        """Publish a dead letter, which fits whatever its record was; see `deliver`."""
        fitted = self._letters.fitted(letter)
        note(fitted)
        self.deliver(fitted, acknowledged)

    def _refused(self, record: Outgoing, error: KafkaError) -> None:
        refusals.count(record.topic, error)
        log.warning("publish_failed", topic=record.topic, error=error.str())
        if refusals.meaning(error) is not Refusal.AGAIN:
            halted = refusals.advice(record.topic, error)
            if self.halted != halted:
                log.error("halted", reason=halted)
            self.halted = halted

    def resend(self) -> None:
        """Publish again what failed since the last call; somebody calls this every now and then, and several
        may at once."""
        for _ in range(len(self._unsent)):
            try:
                unsent = self._unsent.popleft()
            except IndexError:  # another caller was quicker
                return
            self.deliver(*unsent)

    def acknowledged(self, records: Sequence[Outgoing], giving_up: GivingUp) -> bool:
        """Publish records and wait until the broker has them all; False: gave up."""
        left = len(records)
        changed = threading.Condition()

        def one_more() -> None:
            nonlocal left
            with changed:
                left -= 1
                changed.notify()

        for record in records:
            self.deliver(record, one_more)
        while True:
            with changed:
                if changed.wait_for(lambda: left == 0, PATIENCE_S):
                    return True
            if giving_up():
                return False

    def _record(self, record: StepReport | StepOutcome, waited_s: float | None = None) -> Outgoing:
        return envelope.command(record, self._codec.encode(record), waited_s)

    def _send(self, record: Outgoing, on_delivery: OnDelivery) -> None:
        self._publisher.send(record.topic, record.key, record.value, record.headers, on_delivery)


def _unheard(_error: KafkaError | None, _message: Message | None) -> None:
    """The next report makes up for a lost one."""

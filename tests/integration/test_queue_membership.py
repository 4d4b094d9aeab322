"""A worker's queue whose client is out of its group, or a member that reads nothing, on a real broker."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import count

import pytest
from confluent_kafka import Consumer, TopicPartition

from services.executor.work import control, queue
from services.executor.work.control import TOPIC, Control
from services.executor.work.queue import Queue
from services.runtime.membership import OutOfGroup, Patience
from services.runtime.schemas import codec
from tests.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.kafka]

PARTITIONS = 3
WAIT_S = 40
SHORT = Patience(ask_s=0.2, doubt_s=0.1, sure_s=0.2, out_s=1.0)
_number = count(1)


class Lost(Queue):
    """Its group does not list its first client, as far as anybody can ask; `heals` is what a new one does."""

    heals = True

    def _ask_listed(self) -> "Future[bool]":
        if self._clients > 1 and self.heals:
            return super()._ask_listed()
        answer: Future[bool] = Future()
        answer.set_result(False)
        return answer


class Deaf(Queue):
    """Its first client is assigned its partitions and fetches nothing."""

    def _on_assign(self, consumer: Consumer, spots: list[TopicPartition]) -> None:
        super()._on_assign(consumer, spots)
        if self._clients == 1:
            if self._incremental:
                consumer.incremental_assign(spots)
            else:
                consumer.assign(spots)
            consumer.pause(spots)


class DeafControl(Control):
    """Its first client fetches nothing."""

    clients = 0

    def _assign(self) -> None:
        super()._assign()
        self.clients += 1
        if self.clients == 1:
            self._consumer.pause([TopicPartition(TOPIC, number) for number in self._partitions])


Make = Callable[[type[Queue]], Queue]


@pytest.fixture(params=["classic", "consumer"])
def make(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Make]:
    """A queue of this kind on a topic of its own."""
    made: list[Queue] = []
    topic = stack.fresh_topics({"step.requested": PARTITIONS})["step.requested"]
    settings = stack.kafka.model_copy(update={"group_protocol": request.param})

    def build(kind: type[Queue]) -> Queue:
        name = f"{topic}-{next(_number)}"
        one = kind(settings, topic, name, name, codec(), lambda _: None, SHORT)
        made.append(one)
        return one

    yield build
    for one in made:
        one.close()


def _turned(one: Queue, done: Callable[[], bool], what: str) -> None:
    def step() -> bool:
        Queue.join(one)  # to the group, where it is not a member
        one.stay_member()
        one.read(0.05)
        return done()

    until(step, WAIT_S, what)


def _reads_all(one: Queue) -> bool:
    return len(one.partitions) == PARTITIONS == len(one._read_to)


def test_a_queue_that_its_group_has_lost_joins_with_a_new_client(make: Make) -> None:
    lost = make(Lost)
    _turned(lost, lambda: lost._clients == 2 and _reads_all(lost), "a new client that reads")
    _turned(lost, lambda: lost.vigil.trouble is None, "the group to list it")
    assert lost._clients == 2


def test_a_queue_that_a_new_client_does_not_bring_back_ends_its_process(make: Make) -> None:
    lost = make(Lost)
    lost.heals = False  # type: ignore[attr-defined]
    with pytest.raises(OutOfGroup, match="does not list this member"):
        _turned(lost, lambda: False, "the end")


def test_a_member_that_hears_of_no_partition_joins_with_a_new_client(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "UNHEARD_S", 1.0)
    deaf = make(Deaf)
    _turned(deaf, lambda: deaf._clients == 2 and _reads_all(deaf), "a new client that reads")


def test_a_reader_of_step_control_that_hears_nothing_begins_anew(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE", SHORT)
    deaf = DeafControl(stack.kafka, f"deaf-{next(_number)}", codec(), lambda _: None)
    deaf.start()
    try:
        assert deaf.caught_up.wait(WAIT_S)
        assert deaf.clients == 2
    finally:
        deaf.close()

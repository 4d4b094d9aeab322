"""A queue's partition: what may be taken, claimed first and committed."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.commands import StepRequested
from services.executor.work.partition import Partition, Place, Waiting
from tests.exporting import AT

REQUEST = StepRequested(
    attempt_id="a",
    execution_id="e",
    tenant="acme",
    step="step",
    kind="NOOP",
    attempt=1,
    parameters={},
    timeout_s=1,
    requested_at=AT,
)


def filled(offsets: range, max_in_flight: int = 100, end: int | None = None) -> Partition:
    partition = Partition(3, max_in_flight, end)
    for offset in offsets:
        partition.came(Waiting(offset, REQUEST, 0.0))
    return partition


@given(st.permutations(range(20, 30)))
def test_only_the_settled_prefix_is_committed(order: list[int]) -> None:
    partition = filled(range(20, 30))
    for _ in order:
        partition.take()
    settled: set[int] = set()
    for offset in order:
        partition.settle(offset)
        settled.add(offset)
        prefix = next((at for at in range(20, 31) if at not in settled), 30)
        assert partition.to_commit == (prefix if prefix > 20 else None)


def test_a_commit_is_due_once() -> None:
    partition = filled(range(5, 7))
    assert partition.take() == Place(3, 5)
    due = [partition.to_commit]
    partition.settle(5)
    due.append(partition.to_commit)
    partition.committed()
    due.append(partition.to_commit)
    partition.settle(5)  # by its claim before, by its outcome now
    due.append(partition.to_commit)
    assert due == [None, 6, None, None]


def test_records_in_flight_are_bounded_until_they_are_committed() -> None:
    partition = filled(range(5), max_in_flight=2)
    partition.take()
    partition.take()
    rooms = [partition.room]
    partition.settle(0)
    rooms.append(partition.room)
    partition.committed()
    rooms.append(partition.room)
    assert rooms == [0, 0, 1]


def test_what_a_former_owner_may_have_taken_is_claimed_first() -> None:
    partition = filled(range(10, 20), max_in_flight=3)
    assert [offset for offset in range(10, 20) if partition.may_have_killed(offset)] == [10, 11, 12]


def test_what_came_after_us_was_never_anothers() -> None:
    partition = filled(range(10, 20), max_in_flight=100, end=12)
    assert [offset for offset in range(10, 20) if partition.may_have_killed(offset)] == [10, 11]

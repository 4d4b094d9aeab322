"""A log of events as the manager writes it, and what somebody with write access could do to it."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from services.cli.chain import Kind
from services.contracts import events
from services.contracts.envelope import Outgoing
from services.contracts.events import Event, ExecutionCompleted
from services.runtime import schemas
from tests.serving import facts, file_story, record_of

ID = "a1" * 20
OTHER = "b2" * 20
Log = list[Outgoing]


def chained(story: Sequence[Event]) -> Log:
    """The records of an execution, each with its chain."""
    log: Log = []
    chain = b""
    for event in story:
        log.append(record_of(event, chain))
        chain = bytes.fromhex(dict(log[-1].headers)["ms_chain"].decode())
    return log


def written(execution_id: str = ID) -> Log:
    """Six events of an execution that publishes a file."""
    return chained(file_story(execution_id, "acme", "a.csv", "k", b"a"))


def headed(record: Outgoing, **headers: str) -> Outgoing:
    """The record with other headers."""
    changed = {name: text.encode() for name, text in headers.items()}
    return structs.replace(
        record, headers=tuple((name, changed.get(name, value)) for name, value in record.headers)
    )


def edited(record: Outgoing) -> Outgoing:
    """The record with one letter of its worker, cause or text changed, still an event."""
    assert record.value is not None
    event = schemas.codec().decode("execution.events", record.value)
    assert isinstance(event, events.Facts)
    return structs.replace(record, value=schemas.codec().encode(structs.replace(event, causation_id="Test")))


def _edit(at: int) -> Callable[[Log], Log]:
    return lambda log: [*log[:at], edited(log[at]), *log[at + 1 :]]


def _edit_with_chain(log: Log) -> Log:
    """Sequence 3 edited, and its chain computed anew: sequence 4 no longer follows."""
    story = [
        schemas.codec().decode("execution.events", record.value) for record in [*log[:2], edited(log[2])]
    ]
    return [*chained(story)[:3], *log[3:]]  # type: ignore[arg-type]


def _fork(log: Log) -> Log:
    """Another sequence 3 with a good chain, which nothing follows."""
    return [*log[:2], _edit_with_chain(log)[2], *log[2:]]


def _after_the_end(log: Log) -> Log:
    more = ExecutionCompleted(**facts(_id(log), 7), files=9, rows=9, bytes=9)
    return [*log, record_of(more, b"guess")]


def _foreign(log: Log) -> Log:
    return [*log[:3], structs.replace(written(OTHER)[3], key=log[0].key), *log[3:]]


def _id(log: Log) -> str:
    assert log[0].key is not None
    return log[0].key.decode()


Named = tuple[Kind, int | None]
ATTACKS: Mapping[str, tuple[Callable[[Log], Log], list[Named]]] = {
    "the value of the first edited": (_edit(0), [(Kind.EDITED, 1)]),
    "a value edited": (_edit(2), [(Kind.EDITED, 3)]),
    "two values edited": (lambda log: _edit(1)(_edit(4)(log)), [(Kind.EDITED, 2), (Kind.EDITED, 5)]),
    "the value of the last edited": (_edit(5), [(Kind.EDITED, 6)]),
    "a value edited, its chain computed": (_edit_with_chain, [(Kind.EDITED, 4)]),
    "a chain edited": (
        lambda log: [*log[:2], headed(log[2], ms_chain="00" * 32), *log[3:]],
        [(Kind.EDITED, 3)],
    ),
    "a type in the header edited": (
        lambda log: [*log[:3], headed(log[3], ce_type="step.failed"), *log[4:]],
        [(Kind.EDITED, 4)],
    ),
    "the first dropped": (lambda log: log[1:], [(Kind.DROPPED, 1)]),
    "one dropped": (lambda log: [*log[:3], *log[4:]], [(Kind.DROPPED, 4)]),
    "three dropped": (lambda log: [*log[:2], *log[5:]], [(Kind.DROPPED, 3)]),
    "two swapped": (lambda log: [*log[:2], log[3], log[2], *log[4:]], [(Kind.REORDERED, 3)]),
    "the first moved to the end": (lambda log: [*log[1:], log[0]], [(Kind.REORDERED, 1)]),
    "the last moved to the front": (
        lambda log: [log[-1], *log[:-1]],
        [(Kind.REORDERED, sequence) for sequence in range(1, 6)],
    ),
    "another one inserted": (_fork, [(Kind.INSERTED, 3)]),
    "one copied with another chain": (
        lambda log: [*log, headed(log[2], ms_chain="00" * 32)],
        [(Kind.INSERTED, 3)],
    ),
    "one inserted after the end": (_after_the_end, [(Kind.INSERTED, 7)]),
    "one of another execution inserted": (_foreign, [(Kind.INSERTED, 4)]),
    "bytes inserted": (
        lambda log: [*log[:2], structs.replace(log[2], value=b"\0\0\0\0\xffgarbage"), *log[2:]],
        [(Kind.INSERTED, None)],
    ),
    "one without a chain inserted": (
        lambda log: [*log[:2], structs.replace(log[2], headers=()), *log[2:]],
        [(Kind.INSERTED, 3)],
    ),
}
HARMLESS: Mapping[str, Callable[[Log], Log]] = {
    "as written": lambda log: log,
    "still running": lambda log: log[:4],
    "the last batch written again": lambda log: [*log, *log[3:]],
    "everything written twice": lambda log: log + log,
    "a batch written again in between": lambda log: [*log[:4], *log[1:4], *log[4:]],
}

"""A manager dies and its heir takes over 500,000 queued jobs: how long that takes, and how much memory."""

import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg2
from msgspec.structs import replace

from services.contracts import envelope
from services.contracts.commands import JobRequested
from services.contracts.partition import partition_of
from services.contracts.topics import LOOP_PARTITIONS
from services.executor.core import loads
from services.executor.core.admission import Windows
from services.executor.core.decide import next_instant
from services.executor.core.execution import Execution
from services.executor.manager import Manager, State
from services.runtime import entropy
from services.runtime.processor.batch import Batch, route_all
from services.runtime.processor.squeeze import squeezed
from services.runtime.processor.types import Input
from services.runtime.schemas import codec
from tests.bench import noops
from tests.bench.figures import Figure, Sample
from tests.bench.system import Process, System
from tests.waiting import until

JOBS = 500_000
TIMEOUT_S = 120.0
_ABOUT = f"{JOBS:,} queued NOOP jobs of one tenant, two managers, SIGKILL of the one that owned half of them"

TAKEOVER = Figure(
    name="takeover_s_of_500k_queued",
    goal=30.0,
    better="lower",
    unit="s",
    about=f"{_ABOUT}: until the other owns all indexes",
)
MEMORY = Figure(
    name="manager_mb_with_500k_queued",
    goal=512.0,
    better="lower",
    unit="MB",
    about=f"{_ABOUT}: the most memory that the heir ever had resident",
)
FIGURES = (TAKEOVER, MEMORY)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """One death a round; the heir of the last round is stopped, so that each one begins anew."""
    fill(system.database_url, JOBS)
    for _ in range(count):
        first, heir = system.service("manager"), system.service("manager")
        until(lambda: 0 < owned(heir) < LOOP_PARTITIONS, TIMEOUT_S, "both managers to own indexes")  # noqa: B023
        killed_at = entropy.LocalClock().now()
        first.kill()
        until(lambda: owned(heir) == LOOP_PARTITIONS, TIMEOUT_S, "the heir to own all indexes")  # noqa: B023
        took = entropy.LocalClock().now() - killed_at
        peak_mb = heir.peak_rss_mb()
        heir.stop()
        yield {
            TAKEOVER.name: Sample(took / timedelta(seconds=1)),
            MEMORY.name: Sample(peak_mb),
        }


def owned(manager: Process) -> int:
    """How many indexes it owns, as its metrics tell."""
    with urllib.request.urlopen(f"{manager.url}/metrics", timeout=TIMEOUT_S) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("loop_indexes_owned "):
                return int(float(line.split()[1]))
    return 0


def fill(database_url: str, jobs: int) -> None:
    """As many executions, each of which waits in the manager for room."""
    pattern = queued_execution()
    memo = loads.memo(pattern)
    assert memo is not None
    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        rows: Any = Rows(pattern, memo, jobs)
        cursor.copy_expert("COPY executor.state (key, part, body, due_at, memo) FROM STDIN", rows)
        cursor.execute("ANALYZE executor.state")
    connection.close()


def queued_execution() -> Execution:
    """The state of an execution that came when there was no room."""
    manager, now = Manager(codec(), windows=Windows(1, 1, 1, 1)), entropy.LocalClock().now()
    states: dict[str, State | None] = {}
    for offset, wanted in enumerate(on_one_index(2)):
        record = envelope.command(wanted, codec().encode(wanted))
        part = partition_of(record.key or b"", LOOP_PARTITIONS)
        taken = Input(record.topic, part, offset, record.key, record.value, record.headers)
        manager.begin()
        batch = Batch(manager, {wanted.execution_id: None}, now)
        batch.feed(taken, route_all(manager, [taken])[0])
        for row in batch.turn.parts[part].states.values():
            manager.remember(part, row.key, row.memo)
        states |= batch.turn.states
    found = [state for state in states.values() if isinstance(state, Execution)]
    assert found[-1].steps[0].queued_since is not None, "it found room"
    return found[-1]


def on_one_index(count: int) -> list[JobRequested]:
    """Requests whose home is the same."""
    wanted = noops.requests(200)
    homes = [partition_of(request.execution_id.encode(), LOOP_PARTITIONS) for request in wanted]
    return [request for request, home in zip(wanted, homes, strict=True) if home == homes[0]][:count]


class Rows:
    """What COPY reads: the same execution under other ids."""

    def __init__(self, pattern: Execution, memo: bytes, count: int) -> None:
        self._manager, self._pattern, self._left = Manager(codec()), pattern, count
        self._due_at = next_instant(pattern)
        self._memo = memo.hex()

    def read(self, size: int = 1 << 16, /) -> bytes:
        """At least one line; nothing at the end."""
        lines: list[str] = []
        while self._left and len(lines) < max(1, size // 4096):
            self._left -= 1
            key = entropy.fresh_id()
            assert self._pattern.request is not None
            request = replace(self._pattern.request, execution_id=key)
            body = squeezed(self._manager.encode(replace(self._pattern, execution_id=key, request=request)))
            part = partition_of(key.encode(), LOOP_PARTITIONS)
            lines.append(f"{key}\t{part}\t\\\\x{body.hex()}\t{self._due_at}\t\\\\x{self._memo}\n")
        return "".join(lines).encode()

"""Pipelines of one step, and of three, that lie queued: how many a second end, against durable workflows."""

from collections.abc import Iterator

from tests.bench import noops, peer_postgres
from tests.bench.figures import Figure, Sample
from tests.bench.system import System

PIPELINES = 4_000
PEER_PIPELINES = 1_000
WARM_UP = 200
STEPS = {"pipelines_vs_dbos": 1, "pipelines_of_3_vs_dbos": 3}

FIGURES = tuple(
    Figure(
        name=name,
        goal=2.0,
        better="higher",
        unit="pipelines/s",
        about=f"{PIPELINES} pipelines of {steps} NOOP steps queued, first take to last end, manager + worker",
        peer=f"{peer_postgres.DBOS.about}; {PEER_PIPELINES} workflows of {steps} steps",
    )
    for name, steps in STEPS.items()
)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Ours, then the peer's, of each length."""
    peer = peer_postgres.prepared(peer_postgres.DBOS, system)
    for steps in STEPS.values():
        drain_s(system, WARM_UP, steps)
        peer.drain_s(WARM_UP, steps)
    for _ in range(count):
        yield {name: _sample(system, peer, steps) for name, steps in STEPS.items()}


def _sample(system: System, peer: peer_postgres.PostgresPeer, steps: int) -> Sample:
    ours = PIPELINES / drain_s(system, PIPELINES, steps)
    return Sample(ours, PEER_PIPELINES / peer.drain_s(PEER_PIPELINES, steps))


def drain_s(system: System, pipelines: int, steps: int) -> float:
    """Seconds of manager and worker."""
    return noops.drain_s(system, noops.pipelines(pipelines, steps), noops.events_of(steps))

"""Pipelines of three steps that lie queued: how many a second end, against chains of tasks."""

from collections.abc import Iterator

from tests.bench import noops, peer_postgres
from tests.bench.figures import Figure, Sample
from tests.bench.system import System

STEPS = 3
PIPELINES = 4_000
PEER_PIPELINES = 1_000
WARM_UP = 200

FIGURE = Figure(
    name="pipelines_vs_procrastinate",
    goal=2.0,
    better="higher",
    unit="pipelines/s",
    about=f"{PIPELINES} pipelines of {STEPS} NOOP steps queued, first take to last end, manager + worker",
    peer=f"{peer_postgres.PROCRASTINATE.about}; {PEER_PIPELINES} chains of {STEPS} tasks",
)
FIGURES = (FIGURE,)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Ours, then the peer's."""
    peer = peer_postgres.prepared(peer_postgres.PROCRASTINATE, system)
    drain_s(system, WARM_UP)
    peer.drain_s(WARM_UP, STEPS)
    for _ in range(count):
        ours = PIPELINES / drain_s(system, PIPELINES)
        yield {FIGURE.name: Sample(ours, PEER_PIPELINES / peer.drain_s(PEER_PIPELINES, STEPS))}


def drain_s(system: System, pipelines: int) -> float:
    """Seconds of manager and worker."""
    return noops.drain_s(system, noops.pipelines(pipelines, STEPS), noops.events_of(STEPS))

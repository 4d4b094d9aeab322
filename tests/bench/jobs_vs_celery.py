"""20,000 NOOP jobs that lie queued: how many a second end, manager and worker being one process each."""

from collections.abc import Iterator

from services.runtime.entropy import LocalClock
from tests.bench import noops, peer_celery
from tests.bench.figures import Figure, Sample
from tests.bench.system import System
from tests.waiting import until

JOBS = 20_000
WARM_UP = 1_000
TIMEOUT_S = 120.0

ALONE = Figure(
    name="jobs_vs_celery",
    goal=8.0,
    better="higher",
    unit="jobs/s",
    about=f"{JOBS} noop requests queued on job.requested, first take to last end, manager + worker",
    peer=peer_celery.PEER,
)
FOLLOWED = Figure(
    name="jobs_followed_vs_celery",
    goal=4.0,
    better="higher",
    unit="jobs/s",
    about="the same until projector (api) and matcher (notifier), running beside, have committed it",
    peer=peer_celery.PEER,
)
FIGURES = (ALONE, FOLLOWED)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Ours alone, Celery, ours followed."""
    with peer_celery.running(system.folder / "celery") as celery:
        celery.drain_s(WARM_UP)
        alone(system, WARM_UP)
        followed(system, WARM_UP)
        for _ in range(count):
            ours = JOBS / alone(system)
            peer = JOBS / celery.drain_s(JOBS)
            yield {
                ALONE.name: Sample(ours, peer),
                FOLLOWED.name: Sample(JOBS / followed(system), peer),
            }


def alone(system: System, jobs: int = JOBS) -> float:
    """Seconds of manager and worker."""
    return noops.drain_s(system, noops.requests(jobs), noops.EVENTS_PER_JOB)


def followed(system: System, jobs: int = JOBS) -> float:
    """Seconds until the followers have committed what manager and worker did."""
    wanted = noops.queue(system, noops.requests(jobs))
    log, followers = noops.Log(system), noops.Followers(system, ("api", "notifier"))
    processes = [system.service(name) for name in ("api", "notifier", "worker")]
    until(lambda: followers.at(log.ends()), TIMEOUT_S, "the followers to reach the end")
    processes.append(system.service("manager"))
    until(lambda: log.count() >= jobs * noops.EVENTS_PER_JOB, TIMEOUT_S, "the last event")
    until(lambda: followers.at(log.ends()), TIMEOUT_S, "the followers to reach the last event")
    caught_up = LocalClock().now()
    told = log.read(wanted)
    for process in processes:
        process.stop()
    log.close()
    followers.close()
    return max(told.seconds, (caught_up - told.first_take).total_seconds())

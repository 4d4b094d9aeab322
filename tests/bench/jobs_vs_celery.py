"""20,000 NOOP jobs that lie queued: how many a second end, manager and worker being one process each."""

import time
from collections.abc import Iterator

from services.runtime.kafka import Publisher
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
    queue(system, jobs)
    log = noops.Log(system)
    processes = [system.service("worker"), system.service("manager")]
    events = jobs * noops.EVENTS_PER_JOB
    until(lambda: log.count() >= events, TIMEOUT_S, "the last event")
    for process in processes:
        process.stop()
    told = log.read(events)
    log.close()
    assert told.completed == jobs
    return told.seconds


def followed(system: System, jobs: int = JOBS) -> float:
    """Seconds until the followers have committed what manager and worker did."""
    queue(system, jobs)
    log, followers = noops.Log(system), noops.Followers(system, ("api", "notifier"))
    processes = [system.service(name) for name in ("api", "notifier", "worker")]
    until(lambda: followers.at(log.ends()), TIMEOUT_S, "the followers to reach the end")
    processes.append(system.service("manager"))
    events = jobs * noops.EVENTS_PER_JOB
    until(lambda: log.count() >= events, TIMEOUT_S, "the last event")
    written = time.perf_counter()
    ends = log.ends()
    until(lambda: followers.at(ends), TIMEOUT_S, "the followers to reach the last event")
    behind_s = time.perf_counter() - written
    for process in processes:
        process.stop()
    told = log.read(events)
    log.close()
    followers.close()
    assert told.completed == jobs
    return told.seconds + behind_s


def queue(system: System, jobs: int) -> None:
    """The requests, before anybody reads them."""
    publisher = Publisher(system.stack.kafka, "bench")
    noops.publish(publisher, noops.requests(jobs))
    publisher.close(5)

"""Processes that a killed supervisor left behind: found by what they run on, never by a stored pid."""

from collections.abc import Callable
from pathlib import Path

import psutil

GRACE_S = 10.0


def brokers(folder: Path) -> list[psutil.Process]:
    """Kafka brokers that were started with the settings file in `folder`."""
    settings = str(folder / "server.properties")

    def is_ours(process: psutil.Process) -> bool:
        line = process.cmdline()
        return "kafka.Kafka" in line and settings in line

    return search(is_ours)


def databases(data: Path) -> list[psutil.Process]:
    """PostgreSQL servers on `data`, and their children, which live a moment longer and hold shared memory."""

    def is_ours(process: psutil.Process) -> bool:
        return process.name() == "postgres" and Path(process.cwd()) == data

    return search(is_ours)


def services(secrets: Path) -> list[psutil.Process]:
    """Processes `python -m services...` that were given secrets from the folder `secrets`."""

    def is_ours(process: psutil.Process) -> bool:
        if not any(word.startswith("services.") for word in process.cmdline()):
            return False
        return any(value.startswith(f"{secrets}/") for value in process.environ().values())

    return [process for process in search(is_ours) if process.pid != psutil.Process().pid]


def search(is_ours: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Every running process that `is_ours` says yes to; those that we may not look at are not."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if is_ours(process):
                found.append(process)
        except psutil.Error:  # ended meanwhile, or belongs to someone else
            continue
    return found


def end(processes: list[psutil.Process]) -> None:
    """Ask them to stop, then kill; returns when all are gone."""
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            pass
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(alive, timeout=GRACE_S)

"""The loop as real processes: killed at each of its steps, and frozen while another takes over."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.worlds import RealWorld, answers, state_of
from tests.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

KEYS = [f"k{number}" for number in range(60)]
POINTS = ["loop.decided", "loop.settled", "loop.commit", "loop.committed", "loop.produced"]


class Members:
    """Processes of one world; whatever is left of them ends with the test."""

    def __init__(self, world: RealWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, point: str = "") -> subprocess.Popen[bytes]:
        crash = f"{point}:{self.folder / 'mark'}" if point else ""
        environment = {**os.environ, **self.world.member_environment(), "CRASH": crash}
        output = (self.folder / f"member{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.member"], env=environment, stdout=output, stderr=output
        )
        output.close()
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(10)


@pytest.fixture
def world(stack: Stack) -> Iterator[RealWorld]:
    real = RealWorld(stack)
    yield real
    real.close()


@pytest.fixture
def members(world: RealWorld, tmp_path: Path) -> Iterator[Members]:
    found = Members(world, tmp_path)
    yield found
    found.end()


def put_all(world: RealWorld, text: str) -> None:
    for key in KEYS:
        world.put("in.a", key, text.encode())


def all_answered(world: RealWorld, *texts: str) -> bool:
    return {(key, text) for key in KEYS for text in texts} <= set(answers(world))


def check(world: RealWorld, *texts: str) -> None:
    """Every record counted once, whatever happened on the way."""
    for key in KEYS:
        state = state_of(world, key)
        assert state is not None
        assert state.seen == texts
    assert len(world.row_texts()) == len(KEYS) * len(texts)
    assert set(answers(world)) == {(key, text) for key in KEYS for text in texts}


@pytest.mark.parametrize("point", POINTS)
def test_kill_9_at_each_step_loses_and_doubles_nothing(
    world: RealWorld, members: Members, point: str
) -> None:
    victim = members.start(point)
    put_all(world, "one")
    assert victim.wait(60) == -signal.SIGKILL
    assert (members.folder / "mark").read_text().split() == [point]
    members.start()
    until(lambda: all_answered(world, "one"), 60, "the heir's answers")
    check(world, "one")


def test_an_owner_that_was_frozen_wakes_and_writes_nothing_of_what_it_lost(
    world: RealWorld, members: Members
) -> None:
    frozen = members.start()
    put_all(world, "one")
    until(lambda: all_answered(world, "one"), 60, "the first owner's answers")
    frozen.send_signal(signal.SIGSTOP)
    members.start()
    put_all(world, "two")
    until(lambda: all_answered(world, "one", "two"), 60, "the second owner's answers")
    frozen.send_signal(signal.SIGCONT)
    put_all(world, "three")
    until(lambda: all_answered(world, "one", "two", "three"), 60, "the answers of both")
    check(world, "one", "two", "three")
    assert frozen.poll() is None, "waking up fenced is no reason to die"


def test_a_member_that_is_told_to_stop_hands_over_at_once(world: RealWorld, members: Members) -> None:
    first = members.start()
    put_all(world, "one")
    until(lambda: all_answered(world, "one"), 60, "the first owner's answers")
    first.terminate()
    assert first.wait(20) == 0
    members.start()
    put_all(world, "two")
    until(lambda: all_answered(world, "one", "two"), 30, "the heir's answers")
    check(world, "one", "two")

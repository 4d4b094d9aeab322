"""Asking whether a broker is there does not abort the process that asks."""

import subprocess
import sys

from tests.waiting import PROGRAM_S

# The thread that answers is held up just after it has told the failure, as on a busy machine, and so is the
# last to hold it. It ends with its client, at the latest when it lets go; then nothing but Python's is left.
PROBE = """
import threading
from concurrent.futures import Future

import psutil

from services.cli.dev.broker import answers
from services.runtime.settings import kafka_at
from tests.waiting import until, PROGRAM_S

returned = threading.Event()
tell = Future.set_exception

def tell_and_be_held_up(future, exception):
    tell(future, exception)
    returned.wait(0.5)

Future.set_exception = tell_and_be_held_up
assert not answers(kafka_at("127.0.0.1:1", {}))
returned.set()
until(lambda: psutil.Process().num_threads() == 1, 20, "the client's threads to end")
"""


def test_the_thread_that_answers_may_be_the_last_to_hold_its_answer() -> None:
    command = [sys.executable, "-c", PROBE]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROGRAM_S)
    assert (asked.returncode, asked.stderr) == (0, "")

"""Two managers hold one limit together on the real log, while one of them and a worker are killed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from services.runtime import entropy
from services.runtime.entropy import LocalClock
from tests import pipelining
from tests.managing import Client, Managers
from tests.stack import OwnStack, transaction
from tests.waiting import joined, until
from tests.working import REJOIN_S, Workers

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

REQUESTS = 12
LIMIT = 2
RECOVERED_WITHIN_S = 60
LIMITS = [{"key": "key:press", "max": LIMIT, "holds_paused": False}]


class Press(ThreadingHTTPServer):
    """What the limit protects; nobody leaves it before the test says so. `most` is how many requests were in
    it at any one time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.inside: list[str] = []
        self.most = 0
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def requests(self) -> int:
        """How many are in it now; one whose worker has died still is, and may be there twice."""
        with self._lock:
            return len({*self.inside})

    def enter(self, number: str) -> threading.Event:
        """A call begins: what it has to wait for."""
        with self._lock:
            self.inside.append(number)
            self.most = max(self.most, len({*self.inside}))
            return self._gates.setdefault(number, threading.Event())

    def leave(self, number: str) -> None:
        """A call is about to be answered."""
        with self._lock:
            self.inside.remove(number)

    def let_first_out(self) -> None:
        """Answer the request that came first, now and whenever it comes again."""
        with self._lock:
            self._gates[self.inside[0]].set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers are killed: a broken connection is nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    server: Press

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        (number,) = parse_qs(urlsplit(self.path).query)["n"]
        self.server.enter(number).wait(2 * RECOVERED_WITHIN_S)
        self.server.leave(number)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Calls are counted, not printed."""


@contextmanager
def serving(press: Press) -> Iterator[int]:
    """Its port."""
    thread = threading.Thread(target=press.serve_forever, args=(0.05,), name="press", daemon=True)
    thread.start()
    yield int(press.server_address[1])
    press.shutdown()
    joined(thread)
    press.server_close()


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """All processes use the fixed topic names."""
    return own


@pytest.fixture
def managers(own: OwnStack, tmp_path: Path) -> Iterator[Managers]:
    """Two, which share the indexes."""
    managers = Managers(own, tmp_path, own.fresh_database())
    managers.started()
    managers.started()
    until(lambda: sorted(managers.owned()) == [6.0, 6.0], REJOIN_S, "both to own indexes")
    yield managers
    managers.end()


@pytest.fixture
def client(own: OwnStack) -> Iterator[Client]:
    client = Client(own)
    yield client
    client.close()


def ask(client: Client, port: int) -> list[str]:
    """Requests of one pipeline for the press: their ids."""
    url = f"http://127.0.0.1:{port}/print?n=${{n}}"
    steps = [pipelining.noop("open"), pipelining.api("print", parameters={"url": url, "data": {}})]
    asked = [entropy.fresh_id() for _ in range(REQUESTS)]
    for number, id in enumerate(asked):
        body: Any = {"form": [{"name": "n", "type": "integer"}], "steps": steps}
        now = LocalClock().now()
        client.say(pipelining.request(body, {"n": number}, execution_id=id, requested_at=now, limits=LIMITS))
    return asked


def held(managers: Managers) -> tuple[int, int]:
    """How many have a permit, and how many wait for one."""
    with transaction(managers.database_url) as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM executor.permit), (SELECT count(*) FROM executor.permit_waiter)"
        )
        permits, waiters = cursor.fetchone()
        return int(permits), int(waiters)


def calls(pid: int, port: int) -> bool:
    """Whether the process has a call under way."""
    found = psutil.Process(pid).net_connections("tcp")
    return any(getattr(one.raddr, "port", 0) == port for one in found)


def test_no_more_run_than_the_limit_while_a_manager_and_a_worker_are_killed(
    managers: Managers, workers: Workers, client: Client
) -> None:
    allowed = {"MILLSTREAM_OUTBOUND__ALLOW": "127.0.0.0/8"}
    for _ in range(2):
        workers.started(**allowed)
    press = Press()
    with serving(press) as port:
        asked = ask(client, port)
        for left in range(REQUESTS, 0, -1):
            running = min(LIMIT, left)
            until(lambda: press.requests() == running, RECOVERED_WITHIN_S, "those that may run to run")  # noqa: B023
            until(lambda: held(managers) == (running, left - running), REJOIN_S, "all others to wait")  # noqa: B023
            if left == REQUESTS:
                next(process for process in workers.processes if calls(process.pid, port)).kill()
                managers.processes[0].kill()
            press.let_first_out()
        for id in asked:
            client.wait(id, "execution.completed", timeout_s=RECOVERED_WITHIN_S)
    assert press.most == LIMIT
    assert held(managers) == (0, 0)

"""`make demo` as a person runs it; with one byte flipped on its way; and stopped in the middle."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from examples.demo import story
from examples.demo.webhook import Receiver
from services.cli.dev import jars
from services.cli.dev.folder import MissingTool, free_port
from tests import stack, waiting
from tests.e2e.tampering import Tampering, between, flipped

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

COMMAND = [sys.executable, "-m", "examples.demo", "--data"]
TIMEOUT_S = 180
VICTIM = "reports-UA.csv"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder whose servers are ended even when the test is killed.

    Not under pytest's own folder: as root, PostgreSQL runs as another user, and every pytest that starts
    closes that folder to others again.
    """
    try:
        jars.java_version()
        jars.maven()
    except MissingTool as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no local stack: {error}")
    with tempfile.TemporaryDirectory(prefix="millstream-e2e-") as name:
        stack.remember(Path(name))
        yield Path(name)


def environ(**more: str) -> dict[str, str]:
    """Ours, without settings of Millstream that the developer may have set."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MILLSTREAM_")} | more


def test_the_demo_ends_well(folder: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(folder)],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"demo ok: 16 files, 336776 rows, webhook verified, \d+\.\d s", last)
    assert not living(folder)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_byte_flipped_between_api_and_reader_fails_it(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil_file(target: str, body: bytes) -> bytes:
        return flipped(body, len(body) // 2) if VICTIM in target else body

    def spoil_link(target: str) -> str:
        return flipped(target.encode(), -2).decode() if VICTIM in target else target

    tampering = Tampering(answered=spoil_file) if kind == "file" else Tampering(target=spoil_link)
    port = free_port(0, set())
    with between(f"http://127.0.0.1:{port}", tampering) as proxy:
        # The address that links are made with: a gateway in front of api is an everyday thing.
        code = story.run(
            folder, environ(MILLSTREAM_API__PORT=str(port), MILLSTREAM_API__PUBLIC_URL=proxy.url)
        )
        assert proxy.changed == 1
    said = capsys.readouterr().out
    wanted = "expected what psql copies" if kind == "file" else "expected 200 from its link, found 404"
    assert code == 1, said
    assert f"demo failed: {VICTIM}: {wanted}" in said
    assert "demo ok" not in said
    assert not living(folder)


class Tapped(Receiver):
    """A receiver that is reached through a proxy which flips a byte of the body."""

    def __init__(self, record: Path, say: Callable[[str], None]) -> None:
        super().__init__(record, say)
        self._proxy = ExitStack()

    def start(self) -> str:
        """The proxy's URL."""
        url, _, path = super().start().rpartition("/")
        tampering = Tampering(sent=lambda body: flipped(body, len(body) // 2))
        return f"{self._proxy.enter_context(between(url, tampering)).url}/{path}"

    def stop(self) -> None:
        """Both."""
        super().stop()
        self._proxy.close()


def test_a_byte_flipped_between_notifier_and_receiver_fails_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make: Callable[[Path, Callable[[str], None]], Receiver] = Tapped
    code = story.run(folder, environ(), make)
    said = capsys.readouterr().out
    assert code == 1, said
    assert "demo failed: webhook: expected a signature that fits the received bytes" in said
    assert "demo ok" not in said
    assert not living(folder)


def test_ctrl_c_stops_everything(folder: Path) -> None:
    demo = subprocess.Popen(
        [*COMMAND, str(folder)], env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with waiting.killed(demo):
        assert demo.stdout is not None
        for line in demo.stdout:
            if "ok  kafka" in line:
                break
        assert living(folder)
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()
        assert demo.wait(TIMEOUT_S) == 130, said
    assert "everything that was started is stopped" in said
    waiting.until(lambda: not living(folder), 5, "every process of the data folder to be gone")


def living(folder: Path) -> list[psutil.Process]:
    """The processes whose command line or environment names the folder."""
    return [process for process in psutil.process_iter() if str(folder) in " ".join(_words(process))]


def _words(process: psutil.Process) -> Iterator[str]:
    try:
        yield from process.cmdline()
        yield from process.environ().values()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return

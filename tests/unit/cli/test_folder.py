"""The data folder: one owner, private files, ports that nobody uses."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.dev.folder import LOG_BYTES_KEPT, DevError, Folder, free_port
from tests.waiting import PROGRAM_S


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    first, second = Folder(tmp_path), Folder(tmp_path)
    first.create()
    assert not second.is_owned()
    first.own()
    assert second.is_owned()
    with pytest.raises(DevError, match="in use by process"):
        second.own()
    first.release()
    second.own()
    second.release()


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.create()
    path = folder.secret("key", lambda: "first")
    assert folder.secret("key", lambda: "second").read_text() == "first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.secrets.stat().st_mode & 0o777 == 0o700


def test_state_survives_and_nonsense_is_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.state() == {}
    folder.record({"status": "ready"})
    assert folder.state() == {"status": "ready"}
    folder.state_file.write_text("{", encoding="utf-8")
    assert folder.state() == {}


def test_a_large_log_is_set_aside(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.create()
    log = folder.log("api")
    log.write_bytes(b"x" * (LOG_BYTES_KEPT + 1))
    assert not folder.log("api").exists()
    assert log.with_suffix(".log.1").stat().st_size == LOG_BYTES_KEPT + 1


def test_a_taken_port_is_not_chosen() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        chosen: set[int] = set()
        other = free_port(port, chosen)
        assert other != port
        assert free_port(other, chosen) not in (other, port)


def test_two_processes_never_choose_the_same_port() -> None:
    ours = free_port(0, set())
    code = f"from services.cli.dev.folder import free_port; print(free_port({ours}, set()))"
    command = [sys.executable, "-c", code]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PROGRAM_S).stdout
    assert int(theirs) != ours
    assert free_port(ours, set()) == ours

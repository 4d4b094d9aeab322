"""Tells the dispatcher that deliveries were inserted, by any matcher of any process: LISTEN on PostgreSQL."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import psycopg2

from services.runtime import database, telemetry

RETRY_S = 1.0

log = telemetry.get_logger()


async def listen(url: str, channel: str, wake: Callable[[], None]) -> None:
    """Call `wake` at every notification, and after every connection, for something may have been missed.

    Runs until it is cancelled. Without a connection the dispatcher still looks by itself, less often.
    """
    while True:
        try:
            connection = await asyncio.to_thread(_subscribe, url, channel)
        except psycopg2.Error:
            await asyncio.sleep(RETRY_S)
            continue
        try:
            wake()
            await _until_lost(connection, wake)
            log.warning("wakeups_lost")
        finally:
            with suppress(psycopg2.Error):
                connection.close()


def _subscribe(url: str, channel: str) -> database.Connection:
    connection = database.connect(url, "notifier-wakeups")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'LISTEN "{channel}"')
    except BaseException:
        connection.close()
        raise
    return connection


async def _until_lost(connection: database.Connection, wake: Callable[[], None]) -> None:
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
            connection.notifies.clear()
            wake()

    descriptor = connection.fileno()
    loop.add_reader(descriptor, read)
    try:
        await lost.wait()
    finally:
        loop.remove_reader(descriptor)

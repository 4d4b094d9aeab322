"""The source: a table that nothing in the code names, and what psql itself copies of it."""

import hashlib
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg2

from services.cli.dev import postgres
from tests.exporting import PSQL_ENVIRONMENT, psql_copy
from tests.waiting import PROGRAM_S

DEPOTS = ("ALTONA", "BERN", "CORK", "DELFT", "ESPOO", "FARO")
COLUMNS = {
    "parcel_id": ("integer", "bigint PRIMARY KEY"),
    "depot": ("string", "text NOT NULL"),
    "grams": ("integer", "integer NOT NULL"),
    "price": ("decimal", "numeric(10,2)"),
    "note": ("string", "text"),
    "posted_at": ("timestamp", "timestamptz NOT NULL"),
}
DATASET_ID = "parcels-by-depot"
DATASET: dict[str, Any] = {
    "source": "flights",  # the one source that `millstream dev` provides; the table is ours
    "table": "public.parcels",
    "columns": [{"name": name, "type": type_} for name, (type_, _) in COLUMNS.items()],
    "batch": {"column": "depot", "values": list(DEPOTS)},
    "filters": ["grams"],
    "time_column": "posted_at",
    "order_by": ["parcel_id"],
    "formats": ["csv"],
}
REGIONS = {"NORTH": ("ALTONA", "DELFT", "ESPOO"), "SOUTH": ("BERN", "CORK", "FARO")}
REGIONAL_ID = "parcels-by-region"
REGIONAL: dict[str, Any] = DATASET | {
    "table": "public.regional_parcels",
    "columns": [*DATASET["columns"], {"name": "region", "type": "string"}],
    "batch": {"column": "depot", "channel_column": "region"},
}
"""The same rows for S1's requests: which depots a region has, only the source knows."""
SLOW_ID = "slow-parcels"
SLOW: dict[str, Any] = REGIONAL | {"table": "public.slow_parcels"}
"""The same rows, a quarter of a second for every thousandth: all of 60,000 take longer than a lease."""
GATED_ID = "gated-parcels"
GATED: dict[str, Any] = REGIONAL | {"table": "public.gated_parcels"}
"""The same rows, which come only while the gate is open."""
VIEWS = f"""
CREATE VIEW public.regional_parcels AS
    SELECT parcels.*, CASE WHEN depot IN {REGIONS["NORTH"]} THEN 'NORTH' ELSE 'SOUTH' END AS region
    FROM public.parcels;
CREATE FUNCTION public.slowly(number bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF number % 1000 = 0 THEN PERFORM pg_sleep(0.25); END IF;
    RETURN true;
END $$;
CREATE VIEW public.slow_parcels AS SELECT * FROM public.regional_parcels WHERE public.slowly(parcel_id);
"""
GATE = """
CREATE FUNCTION public.passed() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    WHILE NOT pg_try_advisory_xact_lock_shared(1) LOOP PERFORM pg_sleep(0.05); END LOOP;
    RETURN true;
END $$;
CREATE VIEW public.gated_parcels AS
    SELECT parcels.* FROM (SELECT public.passed() AS passed OFFSET 0) AS gate
    JOIN public.regional_parcels AS parcels ON gate.passed;
"""
NOTES = ("", '"say ""fragile"""', '"a, b"', '"two\nlines"', "Zoë Łódź 東京", "plain")
LIGHT_G = 5_000
"""The filter that some requests carry: grams below this."""


def load(url: str, rows: int) -> None:
    """Create the table and fill it through psql's COPY; the same rows for the same number."""
    rng = random.Random(rows)
    lines = [
        f"{number},{rng.choice(DEPOTS)},{rng.randrange(30_000)},{rng.choice(('', '12.50', '-0.01'))},"
        f"{rng.choice(NOTES)},2026-{rng.randrange(1, 13):02}-11T0{rng.randrange(10)}:00:00+02\n"
        for number in range(rows)
    ]
    columns = ", ".join(f"{name} {type_}" for name, (_, type_) in COLUMNS.items())
    _psql(url, f"CREATE TABLE public.parcels ({columns})", b"")
    _psql(url, VIEWS, b"")
    _psql(url, "\\copy public.parcels FROM pstdin WITH (FORMAT csv)", "".join(lines).encode())


@contextmanager
def closed_gate(url: str) -> Iterator[Callable[[], None]]:
    """Exports of `GATED` wait until the function given is called, or the block ends."""
    _psql(url, GATE, b"")
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(1)")
        yield connection.close
    finally:
        connection.close()


@cache
def copied(url: str, depot: str, light: bool) -> str:
    """SHA-256 of psql's own COPY of one depot's rows."""
    where = f"depot = '{depot}'" + (f" AND grams < {LIGHT_G}" if light else "")
    query = f"SELECT {', '.join(COLUMNS)} FROM public.parcels WHERE {where} ORDER BY parcel_id"
    return hashlib.sha256(psql_copy(url, query)).hexdigest()


def _psql(url: str, command: str, given: bytes) -> None:
    words = [str(postgres.binaries() / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url]
    done = subprocess.run(
        [*words, "-c", command],
        input=given,
        capture_output=True,
        check=False,
        env=PSQL_ENVIRONMENT,
        timeout=PROGRAM_S,
    )
    assert done.returncode == 0, done.stderr.decode()

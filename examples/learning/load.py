"""The learning platform's tables, by COPY into a source database."""

import csv
import io
from contextlib import closing

import psycopg2
import psycopg2.extensions

from examples.learning import data

MARK = "a learning platform that never was, loaded by an example of Millstream"


def load(url: str) -> dict[str, int]:
    """Load the tables anew: rows by table. Raises psycopg2.Error, and ValueError for a stranger's table."""
    files = {table: io.StringIO() for table in data.TABLES}
    writers = {table: csv.writer(file) for table, file in files.items()}
    for table, row in data.rows():
        writers[table].writerow(row)
    counts = {}
    with (
        closing(psycopg2.connect(url, application_name="millstream-example")) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        for table, columns in data.TABLES.items():
            _make_room(cursor, table)
            cursor.execute(f"CREATE TABLE public.{table} ({columns})")
            cursor.execute(f"COMMENT ON TABLE public.{table} IS '{MARK}'")
            files[table].seek(0)
            cursor.copy_expert(f"COPY public.{table} FROM STDIN WITH (FORMAT csv)", files[table])
            counts[table] = cursor.rowcount
    return counts


def _make_room(cursor: psycopg2.extensions.cursor, table: str) -> None:
    cursor.execute("SELECT to_regclass(%s), obj_description(to_regclass(%s))", (f"public.{table}",) * 2)
    found, comment = cursor.fetchone() or (None, None)
    if found is not None and comment != MARK:
        raise ValueError(f"public.{table}: expected no such table, or one of this example, found another")
    cursor.execute(f"DROP TABLE IF EXISTS public.{table}")

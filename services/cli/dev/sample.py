"""A table to export on a new machine: orders of a shop that never was."""

from services.cli.dev.roles import session

TABLE = "public.sample_orders"

# Every value is a function of the row's number, so that each machine has the same bytes.
_STATEMENT = """
    CREATE TABLE IF NOT EXISTS public.sample_orders AS
    SELECT n AS id,
           timestamptz '2026-01-01 00:00:00+00' + n * interval '11 minutes' AS ordered_at,
           (ARRAY['north', 'south', 'east', 'west'])[1 + n * 7 % 4] AS region,
           'customer-' || lpad((n * 7919 % 997)::text, 3, '0') AS customer,
           1 + n * 31 % 9 AS items,
           ((n::bigint * 104729 % 50000)::numeric / 100)::numeric(8, 2) AS total
    FROM generate_series(1, 20000) AS n;
"""


def ensure(loader_url: str) -> None:
    """Make the table once."""
    with session(loader_url) as cursor:
        cursor.execute(_STATEMENT)

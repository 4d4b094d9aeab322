"""The demo's source data on a real PostgreSQL, and what it does with tables that are not its own."""

import pytest

from examples.demo import compare, source
from examples.demo.failure import Failed
from tests.stack import Stack, transaction

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    with transaction(url) as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def test_the_data_set_is_loaded_whole_and_typed_however_often(stack: Stack) -> None:
    url = stack.fresh_database()
    for _ in range(2):
        said: list[str] = []
        assert source.load(url, said.append) == 336_776
        assert [line.split()[0] for line in said] == list(source.TABLES)
    counts = {table: ask(url, f"SELECT count(*) FROM public.{table}")[0][0] for table in source.TABLES}
    assert counts == {
        "airlines": 16,
        "airports": 1_458,
        "planes": 3_322,
        "weather": 26_115,
        "flights": 336_776,
    }
    missing = ask(
        url, "SELECT count(*) FILTER (WHERE tailnum IS NULL), count(*) - count(dep_time) FROM public.flights"
    )
    assert missing == [(2_512, 8_255)]  # NA is NULL
    assert ask(
        url, "SELECT pg_typeof(time_hour)::text, pg_typeof(distance)::text FROM public.flights LIMIT 1"
    ) == [("timestamp with time zone", "integer")]


def test_a_table_of_somebody_else_is_left_alone(stack: Stack) -> None:
    url = stack.fresh_database()
    ask(url, "CREATE TABLE public.weather AS SELECT 1 AS mine; SELECT 1")
    with pytest.raises(Failed, match=r"public\.weather: expected no such table"):
        source.load(url, lambda line: None)
    assert ask(url, "SELECT mine FROM public.weather") == [(1,)]
    assert ask(url, "SELECT to_regclass('public.airlines')") == [(None,)]


def test_psql_says_what_it_cannot_do(stack: Stack) -> None:
    with pytest.raises(
        Failed, match=r'psql: expected the rows of AA, found exit code 1: .*"public\.flights"'
    ):
        compare.psql_copy(stack.fresh_database(), "AA")

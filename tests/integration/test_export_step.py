"""The EXPORT step on a real PostgreSQL: its files equal psql's own COPY, whatever is in the table."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg2
import pytest
from msgspec.structs import replace

from services.cli.dev.folder import free_port
from services.contracts.commands import File
from services.executor.steps import STEPS
from services.executor.steps.outcome import Done, Fail, Outcome, Retry
from services.runtime import blobs
from services.runtime.blobs import Blobs, BlobsUnavailable, Writer
from tests import exporting
from tests.exporting import World, cut, psql_copy, sha256
from tests.stack import Stack, transaction

pytestmark = pytest.mark.postgres

THINGS = """
CREATE TABLE public.things (
    id bigint, code text, label varchar(200), amount numeric(30,10), ratio real, precise double precision,
    flag boolean, day date, at timestamp, at_zone timestamptz, ref uuid, "Mixed Case" text, "user" text
);
INSERT INTO public.things VALUES
 (1, 'UA', 'plain', 1.50, 0.1, 0.1, true, '2013-01-01', '2013-01-01 05:00', '2013-01-01 05:00-05',
  '00000000-0000-0000-0000-000000000001', 'm', 'u'),
 (2, 'UA', 'has "quotes", commas', -0.0000000001, 'NaN', 'Infinity', false, '0001-01-01',
  '2013-12-31 23:59:59.999999', 'infinity', NULL, '', NULL),
 (3, 'UA', E'two\\nlines\\r\\nand a \\\\backslash\\ttab', NULL, NULL, -1e300,
  NULL, NULL, NULL, NULL, NULL, NULL, ''),
 (4, 'AA', '', 99999999999999999999.9999999999, 3.4e38, 5e-324, true, '2013-06-01',
  'infinity', '2013-06-01 00:00Z',  '00000000-0000-0000-0000-000000000002', ' padded ', ' '),
 (5, 'AA', 'ünïcödé 漢字 🛫 e\u0301', 0, 0, -0.0, false, '9999-12-31',
  '1900-01-01 00:00', '1900-01-01 00:00Z', NULL, '\\.', '.'),
 (6, 'B6', '=1+1', 7, 7, 7, NULL, '2013-06-02', '2013-06-02 12:00', '2013-06-02 12:00Z', NULL, 'x', 'y'),
 (7, NULL, 'no code', 8, 8, 8, true, '2013-06-03', '2013-06-03 12:00', '2013-06-03 12:00Z', NULL, 'x', 'y');
"""
COLUMNS = {
    "id": "integer",
    "code": "string",
    "label": "string",
    "amount": "decimal",
    "ratio": "float",
    "precise": "float",
    "flag": "boolean",
    "day": "date",
    "at": "timestamp",
    "at_zone": "timestamp",
    "ref": "string",
    "user": "string",
}
DATASET: Mapping[str, Any] = {
    "source": "main",
    "table": "public.things",
    "columns": [{"name": name, "type": type_} for name, type_ in COLUMNS.items()],
    "batch": {"column": "code", "values": ["UA", "AA", "B6", "ZZ"]},
    "filters": [*COLUMNS],
    "time_column": "at",
}
WHOLE = {key: value for key, value in DATASET.items() if key != "batch"}
SELECTED = ", ".join(f'"{name}"' for name in COLUMNS)


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    url = stack.fresh_database()
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(THINGS)
        cursor.execute("CREATE ROLE reader LOGIN PASSWORD 'canary-secret'")
        cursor.execute(
            "CREATE TABLE public.forbidden (id int); CREATE VIEW public.broken AS SELECT 1/0 AS id"
        )
    yield url
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP OWNED BY reader; DROP ROLE reader")
    connection.close()


@pytest.fixture
def world(url: str) -> World:
    return World({"main": url})


def run(world: World, dataset: Mapping[str, Any], **changes: Any) -> Outcome:
    request = exporting.step(dataset, **changes)
    return STEPS[request.kind].run(request, world.context())


def done(world: World, dataset: Mapping[str, Any], **changes: Any) -> dict[str, File]:
    outcome = run(world, dataset, **changes)
    assert isinstance(outcome, Done), outcome
    return {file.name: file for file in outcome.files}


def failed(world: World, dataset: Mapping[str, Any], **changes: Any) -> Fail:
    outcome = run(world, dataset, **changes)
    assert isinstance(outcome, Fail), outcome
    assert [*world.blobs.list("executions")] == []
    return outcome


def ids(world: World, dataset: Mapping[str, Any] = WHOLE, **changes: Any) -> list[int]:
    content = world.content(
        done(world, dataset, params={"columns": ["id"], **changes.pop("params", {})}, **changes)[
            "report.csv"
        ].key
    )
    return [int(line) for line in content.splitlines()[1:]]


# ---------------------------------------------------------------- equal to psql


def test_every_file_equals_psqls_copy(url: str, world: World) -> None:
    files = done(world, DATASET)
    assert [*files] == [
        "reports-UA.csv",
        "reports-AA.csv",
        "reports-B6.csv",
        "reports-ZZ.csv",
        "manifest.json",
    ]
    for code, rows in {"UA": 3, "AA": 2, "B6": 1, "ZZ": 0}.items():
        file = files[f"reports-{code}.csv"]
        theirs = psql_copy(url, f"SELECT {SELECTED} FROM things WHERE code = '{code}'")
        assert world.content(file.key) == theirs
        assert (file.batch, file.rows, file.bytes, file.sha256) == (code, rows, len(theirs), sha256(theirs))


def test_in_a_pipeline_each_file_tells_its_step_and_visit(world: World) -> None:
    alone = exporting.step(DATASET, params={"batches": ["UA"]})
    among = replace(alone, step="Sales north", parameters={**alone.parameters, "among_steps": True})
    for visit, suffix in ((1, ""), (2, "~2")):
        outcome = STEPS["EXPORT"].run(replace(among, visit=visit), world.context(f"{visit}" * 20))
        assert isinstance(outcome, Done)
        report, manifest = outcome.files
        assert report.name == f"Sales north~reports-UA{suffix}.csv"
        assert manifest.name == f"Sales north~manifest{suffix}.json"
        listed = json.loads(world.content(manifest.key))
        assert (listed["step"], listed["visit"]) == ("Sales north", visit)
        assert [file["name"] for file in listed["files"]] == [report.name]


def test_a_dataset_without_batches_is_one_file(url: str, world: World) -> None:
    files = done(world, WHOLE)
    theirs = psql_copy(url, f"SELECT {SELECTED} FROM things")
    assert [*files] == ["report.csv", "manifest.json"]
    assert (files["report.csv"].rows, files["report.csv"].sha256) == (7, sha256(theirs))
    assert files["report.csv"].batch is None


def test_chosen_columns_come_in_the_order_asked_for(url: str, world: World) -> None:
    file = done(world, WHOLE, params={"columns": ["user", "id"]})["report.csv"]
    assert world.content(file.key) == psql_copy(url, 'SELECT "user", id FROM things')


def test_order_by_sorts_every_file(url: str, world: World) -> None:
    file = done(world, {**WHOLE, "order_by": ["day", "id"]})["report.csv"]
    assert world.content(file.key) == psql_copy(url, f"SELECT {SELECTED} FROM things ORDER BY day, id")


def test_a_large_table_is_streamed_and_equals_psqls_copy(stack: Stack) -> None:
    url = stack.fresh_database()
    with transaction(url) as cursor:
        cursor.execute(
            "CREATE TABLE public.numbers AS SELECT n, md5(n::text) AS hash, n % 3 AS third"
            " FROM generate_series(1, 300000) n"
        )
    dataset = {
        "source": "second",
        "table": "public.numbers",
        "columns": [{"name": name, "type": type_} for name, type_ in (("n", "integer"), ("hash", "string"))]
        + [{"name": "third", "type": "integer"}],
        "batch": {"column": "third"},
    }
    world = World({"second": url})
    files = done(world, dataset, params={"batches": ["0", "2"]})
    for third in ("0", "2"):
        file = files[f"reports-{third}.csv"]
        theirs = psql_copy(url, f"SELECT n, hash, third FROM numbers WHERE third = {third}")
        assert (file.rows, file.sha256) == (100_000, sha256(theirs))


def test_the_manifest_lists_every_file_but_itself(world: World) -> None:
    files = done(world, DATASET, params={"batches": ["UA", "AA"]})
    manifest = json.loads(world.content(files["manifest.json"].key))
    assert manifest["totals"] == {"files": 2, "rows": 5, "bytes": sum(f["bytes"] for f in manifest["files"])}
    for listed in manifest["files"]:
        file = files[listed["name"]]
        assert listed == {name: getattr(file, name) for name in listed}
        assert "key" not in listed
    assert manifest["snapshot_at"].endswith("+00:00")
    assert files["manifest.json"].sha256 == sha256(world.content(files["manifest.json"].key))


def test_each_finished_file_is_a_part(world: World) -> None:
    done(world, DATASET)
    assert [(totals.files, totals.rows, detail) for totals, detail in world.parts] == [
        (1, 3, "reports-UA.csv"),
        (2, 5, "reports-AA.csv"),
        (3, 6, "reports-B6.csv"),
        (4, 6, "reports-ZZ.csv"),
    ]


def test_keys_name_execution_step_attempt_and_take(world: World) -> None:
    file = done(world, WHOLE)["report.csv"]
    assert b"plain" in world.content(file.key)
    assert b"plain" not in b"".join(world.blobs.read(file.key))
    assert file.key == f"executions/acme/{'e' * 40}/export/aaaaaaaa-{'f' * 20}/report.csv"


def test_all_files_are_of_one_snapshot(url: str, world: World) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True

    def change() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO things (id, code) VALUES (100, 'AA')")

    world.on_part = change
    try:
        assert done(world, DATASET)["reports-AA.csv"].rows == 2
        assert len(psql_copy(url, "SELECT id FROM things WHERE id = 100").splitlines()) > 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM things WHERE id = 100")
        connection.close()


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("column", "op", "value", "expected"),
    [
        ("id", "eq", 3, [3]),
        ("id", "ne", 3, [1, 2, 4, 5, 6, 7]),
        ("id", "lt", 3, [1, 2]),
        ("id", "le", 3, [1, 2, 3]),
        ("id", "gt", 5, [6, 7]),
        ("id", "ge", 5, [5, 6, 7]),
        ("id", "in", [1, 7, 900], [1, 7]),
        ("code", "is_null", None, [7]),
        ("code", "is_not_null", None, [1, 2, 3, 4, 5, 6]),
        ("label", "eq", "", [4]),
        ("label", "eq", 'has "quotes", commas', [2]),
        ("label", "in", ["ünïcödé 漢字 🛫 e\u0301", "plain"], [1, 5]),
        ("amount", "eq", "1.50", [1]),
        ("amount", "eq", 1.5, [1]),
        ("amount", "gt", "99999999999999999999.9999999998", [4]),
        ("ratio", "eq", 0.1, [1]),
        ("precise", "lt", -1e299, [3]),
        ("flag", "eq", True, [1, 4, 7]),
        ("flag", "in", [False], [2, 5]),
        ("day", "ge", "2013-06-02", [5, 6, 7]),
        ("at", "eq", "2013-01-01T00:00:00-05:00", [1]),
        ("at_zone", "eq", "2013-01-01T10:00:00Z", [1]),
        ("at_zone", "in", ["2013-06-02T14:00:00+02:00"], [6]),
        ("ref", "eq", "00000000-0000-0000-0000-000000000002", [4]),
    ],
)
def test_a_filter_selects(world: World, column: str, op: str, value: Any, expected: list[int]) -> None:
    filter_ = {"column": column, "op": op} | ({} if value is None else {"value": value})
    assert ids(world, params={"filters": [filter_]}) == expected


def test_a_time_range_begins_with_its_start_and_ends_before_its_end(world: World) -> None:
    time_range = {"from": "2013-06-01T00:00:00Z", "to": "2013-06-03T14:00:00+02:00"}
    assert ids(world, time_range=time_range) == [6]


def test_several_filters_are_joined_by_and(world: World) -> None:
    filters = [{"column": "id", "op": "gt", "value": 1}, {"column": "id", "op": "lt", "value": 3}]
    assert ids(world, params={"filters": filters}) == [2]


HOSTILE = {
    "quote break": "' OR '1'='1",
    "comment": "UA'--",
    "union": "UA' UNION SELECT rolpassword FROM pg_authid --",
    "stacked": "UA'; DROP TABLE public.things; --",
    "function call": "pg_sleep(10)",
    "dotted name": "pg_catalog.pg_authid",
    "quoted identifier": '"rolpassword"',
    "homoglyph": "UA\uff07 OR 1=1",
    "percent": "%(id)s %s %%",
    "backslash": "\\' OR 1=1 --",
    "dollar quote": "$$ OR 1=1 $$",
    "copy options": "x') TO STDOUT; COPY things FROM '/etc/passwd' --",
    "like": "%_",
    "emoji": "🛫",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_value_is_only_a_value(url: str, world: World, payload: str) -> None:
    for filters in (
        [{"column": "label", "op": "eq", "value": payload}],
        [{"column": "code", "op": "in", "value": [payload, payload + "'"]}],
        [{"column": "user", "op": "eq", "value": payload}],
    ):
        assert ids(world, params={"filters": filters}) == []
        world = World({"main": url})
    assert psql_copy(url, "SELECT count(*) FROM things") == b"count\n7\n"


# ---------------------------------------------------------------- refusals and outages


@pytest.mark.parametrize(
    ("limit", "batches", "fails"),
    [(5, ["UA", "AA"], False), (4, ["UA", "AA"], True), (6, None, False), (5, None, True)],
)
def test_the_row_limit_counts_all_files(
    world: World, limit: int, batches: list[str] | None, fails: bool
) -> None:
    dataset = {**DATASET, "limits": {"max_rows": limit}}
    params = {"batches": batches} if batches else {}
    if fails:
        outcome = failed(world, dataset, params=params)
        assert (outcome.reason, f"more than {limit} rows" in outcome.message) == ("row_limit", True)
    else:
        assert done(world, dataset, params=params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"table": "public.nothing"},
            'source main, table public.nothing: relation "public.nothing" does not exist (SQLSTATE 42P01)',
        ),
        (
            {"table": "nowhere.things"},
            'source main, table nowhere.things: relation "nowhere.things" does not exist (SQLSTATE 42P01)',
        ),
        (
            {"columns": [{"name": "nope", "type": "string"}]},
            'source main, table public.things: column "nope" does not exist (SQLSTATE 42703)',
        ),
        (
            {"table": "public.broken", "columns": [{"name": "id", "type": "integer"}]},
            (
                "source main, table public.broken: the source could not compute its rows: division by zero"
                " (SQLSTATE 22012)"
            ),
        ),
    ],
    ids=["table", "schema", "column", "data"],
)
def test_a_dataset_that_does_not_fit_its_source_fails(
    world: World, changes: dict[str, Any], message: str
) -> None:
    outcome = failed(
        world,
        {
            "source": "main",
            "table": "public.things",
            "columns": [{"name": "id", "type": "integer"}],
            **changes,
        },
    )
    assert outcome == Fail("dataset_error", message)


def test_a_table_the_role_may_not_read_fails(url: str) -> None:
    reader = url.replace("postgres:test-only@", "reader:canary-secret@")
    dataset = {"source": "main", "table": "public.forbidden", "columns": [{"name": "id", "type": "integer"}]}
    outcome = failed(World({"main": reader}), dataset)
    assert (
        outcome.message
        == "source main, table public.forbidden: permission denied for table forbidden (SQLSTATE 42501)"
    )


@pytest.mark.parametrize("op", ["ne", "is_null"])
def test_ne_does_not_match_null_as_in_sql(world: World, op: str) -> None:
    value = None if op == "is_null" else "UA"
    found = ids(world, params={"filters": [{"column": "code", "op": op, "value": value}]})
    assert found == ([7] if op == "is_null" else [4, 5, 6])


def test_an_unknown_source_fails(world: World) -> None:
    knows_another = World(world.sources, tenants={"other": ("acme",)})
    outcome = failed(knows_another, {**WHOLE, "source": "other"})
    assert outcome == Fail(
        "unknown_source", "source other is not known to this worker; set MILLSTREAM_SOURCES__OTHER"
    )


@pytest.mark.parametrize("tenants", [{}, {"main": ()}, {"main": ("other", "acme2")}, {"second": ("*",)}])
def test_a_source_that_is_not_open_to_the_tenant_is_not_even_connected_to(
    tenants: Mapping[str, tuple[str, ...]],
) -> None:
    nowhere = f"postgresql://someone:canary-secret@127.0.0.1:{free_port(0, set())}/db"
    outcome = failed(World({"main": nowhere}, tenants=tenants), WHOLE)
    assert outcome == Fail(
        "source_closed",
        'source "main" is not open to this tenant;'
        " an administrator names it in MILLSTREAM_SOURCES__MAIN__TENANTS",
    )


def test_a_source_is_open_to_the_tenants_that_it_names(world: World) -> None:
    for tenants in (("other", "acme"), ("*",)):
        assert isinstance(run(World(world.sources, tenants={"main": tenants}), WHOLE), Done)


def test_a_source_that_is_down_is_tried_again_and_told_without_its_url(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World({"main": f"postgresql://someone:canary-secret@127.0.0.1:{free_port(0, set())}/db"})
    outcome = run(world, WHOLE)
    assert outcome == Retry("source_unavailable", "source main cannot be reached, or the connection was lost")
    assert "canary-secret" not in capsys.readouterr().out


def test_a_connection_lost_in_the_middle_is_tried_again(url: str, world: World) -> None:
    world.on_part = lambda: cut(url)
    outcome = run(world, DATASET)
    assert isinstance(outcome, Retry)
    assert outcome.reason == "source_unavailable"


def test_a_step_past_its_timeout_fails(url: str, world: World) -> None:
    with transaction(url) as cursor:
        cursor.execute("CREATE OR REPLACE VIEW public.slow AS SELECT 1 AS id FROM pg_sleep(60)")
    dataset = {"source": "main", "table": "public.slow", "columns": [{"name": "id", "type": "integer"}]}
    outcome = failed(world, dataset, timeout_s=1)
    assert outcome.reason == "timeout"


def test_a_stopped_worker_gives_the_step_back(world: World) -> None:
    world.cancelled.set("worker_stopped")
    outcome = run(world, WHOLE)
    assert isinstance(outcome, Retry)
    assert outcome.reason == "worker_stopped"
    assert [*world.blobs.list("executions")] == []


def test_a_blob_store_that_is_away_is_tried_again(world: World) -> None:
    class Away:
        def __init__(self, store: Blobs) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def create(self, key: str) -> Writer:
            raise BlobsUnavailable("no space left")

    away: Any = Away(blobs.in_memory())
    outcome = run(World(world.sources, blobs=away), WHOLE)
    assert outcome == Retry("blobs_unavailable", "the blob store cannot take the files now")

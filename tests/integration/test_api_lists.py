"""GET /v1/executions: filters, pages that lose and repeat nothing, and cursors that fit their list alone."""

from typing import Any

import httpx
import pytest

from tests.serving import Api

pytestmark = pytest.mark.postgres

COUNT = 30
THIRTY = """
    INSERT INTO api.job_request (execution_id, tenant, principal, job_type, tag, state, submitted_at)
    SELECT lpad(to_hex(n), 40, '0'),
           CASE WHEN n %% 10 = 9 THEN 'other' ELSE 'acme' END,
           CASE WHEN n %% 2 = 0 THEN 'alice' ELSE 'bob' END,
           CASE WHEN n %% 3 = 0 THEN 'noop' ELSE 'export' END,
           CASE WHEN n %% 4 = 0 THEN 'nightly' ELSE '' END,
           (%s)[1 + n %% 5],
           timestamptz '2026-01-01Z' + interval '1 hour' * (n / 2)
    FROM generate_series(0, %s) n
"""
STATES = ("pending", "running", "completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def api(api: Api) -> Api:
    """Thirty executions, an hour apart, of mixed states, types, requesters and tags."""
    with api.cursor() as cursor:
        cursor.execute(THIRTY, (list(STATES), COUNT - 1))
    return api


def number(item: dict[str, Any]) -> int:
    return int(item["execution_id"], 16)


OURS = [n for n in range(COUNT) if n % 10 != 9]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", OURS),
        ("status=failed", [n for n in OURS if n % 5 == 3]),
        ("status=failed&status=pending", [n for n in OURS if n % 5 in {0, 3}]),
        ("job_type=noop", [n for n in OURS if n % 3 == 0]),
        ("requester=bob", [n for n in OURS if n % 2]),
        ("tag=nightly", [n for n in OURS if n % 4 == 0]),
        ("submitted_after=2026-01-01T10:00:00Z", [n for n in OURS if n >= 20]),
        ("submitted_before=2026-01-01T05:30:00%2B00:30", [n for n in OURS if n < 10]),
        ("requester=alice&job_type=noop&status=running", [n for n in OURS if n % 6 == 0 and n % 5 == 1]),
        ("tag=unknown", []),
        ("status=waiting", []),
    ],
)
@pytest.mark.parametrize("limit", [1, 4, 200])
def test_pages_of_any_size_show_what_passes_once(
    client: httpx.Client, query: str, expected: list[int], limit: int
) -> None:
    found: list[int] = []
    address: str | None = f"/v1/executions?limit={limit}&{query}"
    while address is not None:
        answer = client.get(address)
        page = answer.json()
        assert answer.headers.get("link") == (page["next"] and f'<{page["next"]}>; rel="next"')
        assert len(page["items"]) == limit or page["next"] is None
        found += map(number, page["items"])
        address = page["next"]
    assert found == expected[::-1]


def test_a_new_execution_does_not_move_the_pages(api: Api) -> None:
    with api.client(api.key(principal="carol")) as carol:

        def submit() -> str:
            return str(carol.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"])

        known = [submit(), submit()]
        page = carol.get("/v1/executions?limit=1&requester=carol").json()
        submit()
        rest = carol.get(page["next"]).json()
    assert [item["execution_id"] for item in [*page["items"], *rest["items"]]] == known[::-1]


def test_a_cursor_fits_its_filters_alone(client: httpx.Client) -> None:
    page = client.get("/v1/executions?limit=1&status=failed&tag=nightly").json()
    cursor = httpx.URL(page["next"]).params["cursor"]
    for query in ("", "status=failed", "status=running&tag=nightly", "tag=nightly"):
        answer = client.get(f"/v1/executions?cursor={cursor}&{query}")
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "cursor")
    assert client.get(f"/v1/executions?cursor={cursor}&tag=nightly&status=failed").status_code == 200


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=done", "status[0]"),
        ("status=failed&status=", "status[1]"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("tag=", "tag"),
        ("tag=a%00b", "tag"),
        ("requester=" + "x" * 201, "requester"),
        ("submitted_after=yesterday", "submitted_after"),
        ("submitted_after=2026-01-01T00:00:00", "submitted_after"),
        ("type=noop", "type"),
        ("stat%00us=failed", "query"),
        ("cursor=x", "cursor"),
        ("cursor=" + "A" * 301, "cursor"),
    ],
)
def test_a_wrong_filter_is_named(client: httpx.Client, query: str, pointer: str) -> None:
    answer = client.get(f"/v1/executions?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)


def test_a_filter_reads_its_own_index(api: Api) -> None:
    """One failed execution among ten thousand is found without reading the others."""
    with api.cursor() as cursor:
        cursor.execute(
            "INSERT INTO api.job_request (execution_id, tenant, principal, job_type, state, submitted_at)"
            " SELECT md5(n::text) || 'abcdef01', 'many', 'p', 't', CASE WHEN n = 7 THEN 'failed' ELSE"
            " 'completed' END, now() FROM generate_series(1, 10000) n"
        )
        cursor.execute("ANALYZE api.job_request")
    with api.client(api.key(tenant="many")) as client:
        items = client.get("/v1/executions?status=failed").json()["items"]
    assert [item["execution_id"][:32] for item in items] == ["8f14e45fceea167a5a36dedd4bea2543"]
    with api.cursor() as cursor:
        cursor.execute(
            "EXPLAIN SELECT 1 FROM api.job_request WHERE tenant = 'many' AND state = ANY('{failed}')"
            " ORDER BY submitted_at DESC, execution_id DESC LIMIT 51"
        )
        assert "job_request_state" in "".join(line for (line,) in cursor.fetchall())


@pytest.mark.parametrize(
    ("index", "query"),
    [
        (
            "job_request_pipeline",
            "SELECT 1 FROM api.job_request WHERE tenant = 't' AND job_type = 'pipeline' AND dataset_id = 'p'",
        ),
        ("command_rerun", "SELECT answer FROM api.command WHERE execution_id = 'x' AND rerun_id = 'y'"),
    ],
)
def test_lookups_have_an_index(api: Api, index: str, query: str) -> None:
    with api.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {query}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert index in plan, plan

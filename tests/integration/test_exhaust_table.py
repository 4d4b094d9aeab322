"""S1's table `job_request`: its columns and key, and what they hold for requests of every origin."""

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from services.contracts import events
from services.contracts.status import WORDS
from services.runtime import entropy
from tests.serving import Api, accepted, facts, file_story

pytestmark = pytest.mark.postgres

# S1 1.19, as PostgreSQL reports the types.
COLUMNS = {
    "tag": "character varying(50)",
    "request_id": "character varying(50)",
    "job_id": "character varying(50)",
    "status": "character varying(50)",
    "request_data": "json",
    "requested_by": "character varying(50)",
    "requested_channel": "character varying(50)",
    "download_urls": "text[]",
    "dt_file_created": "timestamp without time zone",
    "dt_job_submitted": "timestamp without time zone",
    "dt_job_completed": "timestamp without time zone",
    "execution_time": "integer",
    "err_message": "character varying(100)",
}


def row(api: Api, execution_id: str) -> dict[str, Any]:
    found = api.rows(
        f"SELECT {', '.join(COLUMNS)} FROM api.job_request WHERE execution_id = %s", execution_id
    )
    return dict(zip(COLUMNS, found[0], strict=True))


def test_columns_and_key_are_those_of_the_source(api: Api) -> None:
    found = api.rows(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'api.job_request'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    assert {name: type_ for name, type_ in found if name in COLUMNS} == COLUMNS
    key = api.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'api.job_request'::regclass AND contype = 'p'"
    )
    assert key == [("PRIMARY KEY (tag, request_id)",)]


def test_every_state_has_its_word(api: Api) -> None:
    with api.client() as client:
        id = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    for status, words in WORDS.items():
        with api.cursor() as cursor:
            cursor.execute(
                "UPDATE api.job_request SET state = %s WHERE execution_id = %s", (status.value, id)
            )
        assert row(api, id)["status"] == words.exhaust


def test_a_submitted_request_is_there_before_any_event(api: Api) -> None:
    with api.client() as client:
        id = client.post("/v1/executions", json={"jobType": "noop", "tag": "client-1"}).json()["execution_id"]
    found = row(api, id)
    assert (found["tag"], found["request_id"], found["job_id"]) == ("client-1", id, "noop")
    assert (found["status"], found["requested_by"]) == ("SUBMITTED", "alice")
    assert found["request_data"] == {"jobId": "noop", "jobConfig": {}, "output_format": None}
    assert (found["download_urls"], found["dt_job_completed"], found["err_message"]) == ([], None, None)


def test_a_request_of_another_service_is_known_by_its_events(api: Api, tmp_path: Path) -> None:
    id = entropy.fresh_id()
    first, *rest = file_story(id, "acme", "reports-a.csv", "k", b"a,b\n")
    assert isinstance(first, events.ExecutionAccepted)
    request = replace(first.request, tag="t" * 60, requested_channel="TPD", parameters={"params": {"x": 1}})
    end = rest[-1]
    later = replace(end, occurred_at=end.occurred_at + timedelta(seconds=5))
    api.project([replace(first, request=request), *rest[:-1], later])
    found = row(api, id)
    assert (found["tag"], found["requested_channel"], found["status"]) == ("t" * 50, "TPD", "COMPLETED")
    assert found["request_data"] == {"jobId": "noop", "jobConfig": {"x": 1}, "output_format": None}
    assert found["download_urls"] == [f"/files/{id}/reports-a.csv"]
    assert found["dt_job_completed"] == later.occurred_at.astimezone(UTC).replace(tzinfo=None)
    assert found["dt_file_created"] is not None
    assert found["execution_time"] == 5


def test_download_urls_are_paths_in_the_spelling_of_links(api: Api) -> None:
    id = entropy.fresh_id()
    api.project(file_story(id, "acme", "Export all~r\u00e9sum\u00e9 100%.csv", "k", b"a,b\n"))
    assert row(api, id)["download_urls"] == [f"/files/{id}/Export%20all~r%C3%A9sum%C3%A9%20100%25.csv"]


def test_the_message_is_cut_to_fit(api: Api) -> None:
    id = entropy.fresh_id()
    fault = events.ExecutionFailed(
        **facts(id, 2), reason="r", message="\0" + "m" * 200, step=None, dead_letter=None
    )
    api.project([accepted(id), fault])
    assert row(api, id)["err_message"] == "\ufffd" + "m" * 99

"""Every published file is listed and opens, also where events of one execution give two of them one name."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from services.api import read_tables
from services.api.projector import Projector
from services.contracts import commands, events
from services.contracts.events import Event
from services.runtime import entropy, schemas
from services.runtime.processor.types import Input, Routed, Row
from tests.serving import Api, accepted, facts

pytestmark = pytest.mark.postgres

PUBLISHED = (("north", "report.csv"), ("north", "manifest.json"), ("south", "report.csv"),
             ("south", "manifest.json"), ("south", "report.csv"), ("süd", "report.csv"))  # fmt: skip
NAMES = ["manifest.json", "report.csv", "south~manifest.json", "south~report.csv", "south~report~2.csv",
         "süd~report.csv"]  # fmt: skip


def story(api: Api, id: str) -> Iterator[Event]:
    """What a pipeline of exports told before its files told their steps."""
    yield accepted(id, tag="colliding")
    for place, (step, name) in enumerate(PUBLISHED):
        content = f"{step},{place}\n".encode()
        key = f"executions/acme/{id}/{step.encode().hex()}/{place}/{name}"
        with api.parts.files.create("acme", key) as writer:
            writer.write(content)
            writer.finish()
        file = commands.File(
            name=name,
            key=key,
            batch=None,
            rows=1,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            content_type="text/csv",
        )
        yield events.FilePublished(**facts(id, 2 + place), step=step, file=file)


def rows_of(story: list[Event]) -> list[Row]:
    """The rows of a whole batch."""
    projector, state = Projector(schemas.codec()), None
    rows: list[Row] = []
    for event in story:
        record = Input("execution.events", 0, 0, event.execution_id.encode(), schemas.codec().encode(event))
        routed = projector.route(record)
        assert isinstance(routed, Routed)
        change = projector.apply(routed, state, {}, record, event.occurred_at)
        state = change.state
        rows += change.rows
    return rows


@pytest.mark.parametrize("at_once", [True, False])
def test_every_file_of_colliding_events_is_listed_and_opens(
    api: Api, client: httpx.Client, anonymous: httpx.Client, at_once: bool
) -> None:
    id = entropy.fresh_id()
    told = [*story(api, id)]
    if at_once:
        for _ in range(2):  # once more changes nothing
            with api.own_cursor() as cursor:
                read_tables.write_rows(cursor, rows_of(told))
    else:
        api.project(told)
    listed = client.get(f"/v1/executions/{id}").json()["files"]
    assert [file["name"] for file in listed] == NAMES
    for file in listed:
        answer = anonymous.get(file["url"])
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"s_d~report.csv\"; filename*=UTF-8''s%C3%BCd~report.csv"
    )
    answer = client.post(f"/v1/executions/{id}/files/south~report~2.csv/revoke-links")
    assert answer.status_code == 204
    assert anonymous.get(listed[4]["url"]).status_code == 404
    reports = client.get(f"/data/v3/job/request/read/colliding/{id}").json()["result"]["downloadURLs"]
    assert [url.partition("?")[0].rpartition("/")[2] for url in reports] == [
        "report.csv", "south~report.csv", "south~report~2.csv", "s%C3%BCd~report.csv",
    ]  # fmt: skip

"""What S1's batchFilters and contentFilters turn out to be in a real source: the learning platform's."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.learning import data
from examples.learning.load import load
from services.executor.steps import STEPS
from services.executor.steps.outcome import Done, Fail, Outcome
from tests import exporting
from tests.exporting import World, psql_copy, sha256
from tests.stack import Stack, transaction

pytestmark = pytest.mark.postgres

FOLDER = Path(__file__).parents[2] / "examples" / "learning"
DATASET: dict[str, Any] = yaml.safe_load((FOLDER / "assessment-score-report.yaml").read_bytes())
CONFIG: dict[str, Any] = json.loads((FOLDER / "submit.json").read_bytes())["request"]["jobConfig"]
COURSES = CONFIG["contentFilters"]["request"]["filters"]["identifier"]


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    made = stack.fresh_database()
    counts = load(made)
    assert counts == load(made) == {"course_progress": 2576, "assessment_score": 2571}
    return made


def run(url: str, dataset: dict[str, Any] = DATASET, **params: Any) -> Outcome:
    world = World({"flights": url})
    return STEPS["EXPORT"].run(exporting.step(dataset, params=params), world.context())


def done(url: str, dataset: dict[str, Any] = DATASET, **params: Any) -> Done:
    outcome = run(url, dataset, **params)
    assert isinstance(outcome, Done), outcome
    return outcome


def failed(url: str, dataset: dict[str, Any] = DATASET, **params: Any) -> tuple[str, str]:
    outcome = run(url, dataset, **params)
    assert isinstance(outcome, Fail), outcome
    return outcome.reason, outcome.message


def search(**fields: Any) -> dict[str, Any]:
    return {"contentFilters": {"request": fields}}


def test_channels_stand_for_their_batches_of_the_courses(url: str) -> None:
    outcome = done(url, **CONFIG)
    ids = data.batches(["TPD", "NCFCOPY"], COURSES)
    assert len(ids) == 8
    assert outcome.output["batch_filters"] == {"ids": ids, "channels": ["TPD", "NCFCOPY"]}
    files = {file.name: file for file in outcome.files}
    assert list(files) == [*(f"reports-{id}.csv" for id in ids), "manifest.json"]
    for id in ids:
        expected = psql_copy(
            url,
            "SELECT course_id, course_name, framework, prev_state, channel, batch_id, learner_id, district,"
            f" assessment_id, attempt, attempted_on, score, max_score FROM assessment_score"
            f" WHERE batch_id = '{id}' ORDER BY learner_id, assessment_id, attempt",
        )
        assert files[f"reports-{id}.csv"].sha256 == sha256(expected)


def test_a_batch_stands_for_itself_even_where_nothing_matches(url: str) -> None:
    (other,) = set(data.batches(["NTP"], [data.COURSES[4].id])[:1])
    outcome = done(url, batchFilters=[other, "CBSE"], **search(filters={"identifier": COURSES[0]}))
    ids = sorted([other, *data.batches(["CBSE"], COURSES[:1])])
    assert outcome.output["batch_filters"] == {"ids": ids, "channels": ["CBSE"]}
    assert {file.batch: file.rows for file in outcome.files}[other] == 0


def test_one_course_without_entries_is_all_its_batches(url: str) -> None:
    outcome = done(url, **search(filters={"identifier": COURSES[1]}))
    ids = data.batches(data.CHANNELS, COURSES[1:])
    assert outcome.output["batch_filters"] == {"ids": ids, "channels": []}


def test_a_limit_counts_contents_in_their_order(url: str) -> None:
    newest = max(data.COURSES, key=lambda course: course.created_on)
    oldest = min(data.COURSES, key=lambda course: course.created_on)
    for order, course in {"desc": newest, "asc": oldest}.items():
        outcome = done(url, batchFilters=["TPD"], **search(sort_by={"createdOn": order}, limit=1))
        assert outcome.output["batch_filters"]["ids"] == data.batches(["TPD"], [course.id])
    first = min(course.id for course in data.COURSES)
    outcome = done(url, batchFilters=["TPD"], **search(limit=1))
    assert outcome.output["batch_filters"]["ids"] == data.batches(["TPD"], [first])


def test_an_entry_that_is_neither_ends_it_before_any_file(url: str) -> None:
    assert failed(url, batchFilters=["TPD", "NIX"]) == (
        "unknown_batch",
        'batchFilters: expected a batch or a channel of the source, found "NIX"',
    )


def test_nothing_matches_and_there_is_no_file(url: str) -> None:
    outcome = done(url, batchFilters=["TPD"], **search(filters={"prevState": "Retired"}))
    assert outcome.output["batch_filters"] == {"ids": [], "channels": ["TPD"]}
    assert [file.name for file in outcome.files] == ["manifest.json"]


def test_the_row_limit_counts_the_batches_that_were_found(url: str) -> None:
    found = failed(url, {**DATASET, "limits": {"max_rows": 10}}, batchFilters=["TPD"])
    assert found[0] == "row_limit"
    dataset = {**DATASET, "limits": {"max_rows": 1}}
    done(url, dataset, batchFilters=["TPD"], **search(filters={"prevState": "Retired"}))


PLAIN: dict[str, Any] = {
    "source": "flights",
    "table": "public.named",
    "columns": [{"name": "batch", "type": "string"}, {"name": "number", "type": "integer"}],
}


@pytest.fixture(scope="module")
def named(url: str) -> None:
    with transaction(url) as cursor:
        cursor.execute("CREATE TABLE public.named (batch text, number int, org text)")
        cursor.execute(
            "INSERT INTO public.named VALUES ('a/b', 1, 'slash'), ('x', 2, 'case'), ('X', 3, 'case')"
        )
        cursor.execute(
            "INSERT INTO public.named SELECT 'n' || n, n, 'many' FROM generate_series(1, 1001) AS n"
        )


@pytest.mark.usefixtures("named")
def test_batches_that_cannot_be_files_end_it(url: str) -> None:
    columns = [*PLAIN["columns"], {"name": "org", "type": "string"}]
    dataset = {**PLAIN, "columns": columns, "batch": {"column": "batch", "channel_column": "org"}}
    assert failed(url, dataset, batchFilters=["slash"])[0] == "batch_name"
    assert failed(url, dataset, batchFilters=["case"])[0] == "batch_name"
    assert failed(url, dataset, batchFilters=["many"])[0] == "too_many_batches"
    assert done(url, dataset, batchFilters=["x"]).files[0].rows == 1


@pytest.mark.usefixtures("named")
def test_a_number_is_a_batch_only_in_its_one_spelling(url: str) -> None:
    dataset = {**PLAIN, "batch": {"column": "number"}}
    assert done(url, dataset, batchFilters=["2"]).output["batch_filters"] == {"ids": ["2"], "channels": []}
    message = 'batchFilters: expected a batch of the source, found "02", "x"'
    assert failed(url, dataset, batchFilters=["02", "x", "3"]) == ("unknown_batch", message)


def test_declared_batches_are_taken_as_declared(url: str) -> None:
    (id, *_) = data.batches(["TPD"], COURSES)
    dataset = {**DATASET, "batch": {"column": "batch_id", "values": [id]}}
    assert done(url, dataset, batchFilters=[id]).output["batch_filters"] == {"ids": [id], "channels": []}

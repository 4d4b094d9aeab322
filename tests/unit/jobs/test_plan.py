"""Plans: what a request becomes, and every reason not to take it."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services import jobs
from services.contracts.commands import Definition, JobRequested
from services.contracts.errors import FieldError
from services.executor.formats import FORMATS
from services.executor.steps import CALLS, STEPS
from services.jobs import dataset
from services.jobs.pipeline.kinds import KINDS
from services.jobs.refused import Refused
from services.runtime import schemas
from tests import exporting

DATASET: Mapping[str, Any] = {
    "source": "flights",
    "table": "public.flights",
    "columns": [
        {"name": "carrier", "type": "string"},
        {"name": "flight", "type": "integer"},
        {"name": "price", "type": "decimal"},
        {"name": "speed", "type": "float"},
        {"name": "late", "type": "boolean"},
        {"name": "day", "type": "date"},
        {"name": "at", "type": "timestamp"},
        {"name": "hidden", "type": "string"},
    ],
    "batch": {"column": "carrier", "values": ["9E", "AA", "UA"]},
    "filters": ["carrier", "flight", "price", "speed", "late", "day", "at"],
    "time_column": "at",
}
OPEN = {**DATASET, "batch": {"column": "carrier"}}
WHOLE = {key: value for key, value in DATASET.items() if key not in ("batch", "time_column", "filters")}
HINT = "(GET /v1/datasets/things-report)"
PARAM_NAMES = "batches, columns, filters, format, batchFilters, contentFilters, reportPath"
PARAM_NAMES = "batches, columns, filters, format, batchFilters, contentFilters, reportPath"
KNOWN = "carrier, flight, price, speed, late, day, at, hidden"


def planned(body: Mapping[str, Any] = DATASET, **changes: Any) -> dict[str, Any]:
    (step,) = jobs.plan(exporting.job(body, **changes))
    assert (step.name, step.kind, step.timeout_s, step.max_attempts) == ("export", "EXPORT", 21600, 5)
    return dict(step.parameters)


def refusals(request: JobRequested) -> list[str]:
    with pytest.raises(Refused) as caught:
        jobs.plan(request)
    return [str(error) for error in caught.value.errors]


def test_a_plan_carries_everything_the_worker_needs() -> None:
    parameters = planned(
        {**DATASET, "order_by": ["flight"], "limits": {"max_rows": 9}},
        params={
            "batches": ["UA", "9E"],
            "columns": ["flight", "carrier"],
            "filters": [{"column": "flight", "op": "gt", "value": 7}],
            "format": "csv",
        },
        time_range={"from": "2013-01-01T00:00:00+01:00", "to": "2013-01-02T00:00:00Z"},
    )
    assert parameters == {
        "source": "flights",
        "table": "public.flights",
        "columns": [{"name": "flight", "type": "integer"}, {"name": "carrier", "type": "string"}],
        "filters": [{"column": "flight", "type": "integer", "op": "gt", "value": "7"}],
        "time": {"column": "at", "from": "2012-12-31T23:00:00+00:00", "to": "2013-01-02T00:00:00+00:00"},
        "contents": None,
        "batch": {"column": "carrier", "values": ["UA", "9E"]},
        "order_by": ["flight"],
        "format": "csv",
        "max_rows": 9,
    }


def test_nothing_asked_for_is_everything_declared() -> None:
    parameters = planned()
    assert parameters["batch"] == {"column": "carrier", "values": ["9E", "AA", "UA"]}
    assert [column["name"] for column in parameters["columns"]] == KNOWN.split(", ")
    assert (parameters["filters"], parameters["time"], parameters["format"]) == ([], None, "csv")
    assert planned(WHOLE)["batch"] is None
    assert planned(OPEN, params={"batches": ["any", "thing"]})["batch"]["values"] == ["any", "thing"]


def test_absent_and_null_parameters_are_the_same() -> None:
    shapes: tuple[dict[str, Any], ...] = ({}, {"params": None}, {"params": {}, "time_range": None})
    for parameters in shapes:
        assert jobs.plan(exporting.job(DATASET, parameters=parameters)) == jobs.plan(exporting.job(DATASET))


BAD: dict[str, tuple[Mapping[str, Any], dict[str, Any], list[str]]] = {
    "unknown batch": (
        DATASET,
        {"batches": ["UA", "ZZ"]},
        [f'params.batches[1]: unknown batch "ZZ"; known: 9E, AA, UA {HINT}'],
    ),
    "one unknown batch of many": (
        {**DATASET, "batch": {"column": "carrier", "values": [f"B{n}" for n in range(40)]}},
        {"batches": ["ZZ"]},
        [
            'params.batches[0]: unknown batch "ZZ"; known: '
            + ", ".join(f"B{n}" for n in range(20))
            + f", ... {HINT}"
        ],
    ),
    "batch twice": (
        DATASET,
        {"batches": ["UA", "UA"]},
        ['params.batches[1]: batch "UA" is already at index 0'],
    ),
    "batch of another type": (
        DATASET,
        {"batches": [9, None, ["UA"], {"a": 1}]},
        [
            f"params.batches[0]: unknown batch 9; known: 9E, AA, UA {HINT}",
            f"params.batches[1]: unknown batch nothing; known: 9E, AA, UA {HINT}",
            f"params.batches[2]: unknown batch a list; known: 9E, AA, UA {HINT}",
            f"params.batches[3]: unknown batch an object; known: 9E, AA, UA {HINT}",
        ],
    ),
    "batches no list": (
        DATASET,
        {"batches": "UA"},
        ['params.batches: expected a list of 1 to 1000, found "UA"'],
    ),
    "no batches": (
        DATASET,
        {"batches": []},
        ["params.batches: expected a list of 1 to 1000, found 0 entries"],
    ),
    "100,000 batches": (
        DATASET,
        {"batches": ["UA"] * 100_000},
        ["params.batches: expected a list of 1 to 1000, found 100000 entries"],
    ),
    "batches needed": (
        OPEN,
        {},
        [
            (
                "params.batches: expected a list of 1 to 1000 values of carrier, found nothing: the dataset"
                f" declares none {HINT}"
            )
        ],
    ),
    "batches without a key": (
        WHOLE,
        {"batches": ["UA"]},
        [f"params.batches: this dataset has no batch key; remove the field {HINT}"],
    ),
    "unsafe open batch": (
        OPEN,
        {"batches": ["../x"]},
        [
            (
                "params.batches[0]: expected 1 to 108 of A-Z a-z 0-9 . _ - beginning with a letter or digit"
                ' (it names a file), found "../x"'
            )
        ],
    ),
    "unknown column": (
        DATASET,
        {"columns": ["carrier", "pilot"]},
        [f'params.columns[1]: unknown column "pilot"; known: {KNOWN} {HINT}'],
    ),
    "column twice": (
        DATASET,
        {"columns": ["carrier", "carrier"]},
        ['params.columns[1]: column "carrier" is already at index 0'],
    ),
    "unknown format": (
        DATASET,
        {"format": "xlsx"},
        [f'params.format: unknown format "xlsx"; known: csv {HINT}'],
    ),
    "unknown field": (
        DATASET,
        {"filter": []},
        [f"params.filter: unknown field; known: {PARAM_NAMES}; did you mean filters?"],
    ),
    "params no object": (
        DATASET,
        {"": 1},
        [f"params.: unknown field; known: {PARAM_NAMES}"],
    ),
    "filter on a column that is not opened": (
        DATASET,
        {"filters": [{"column": "hidden", "op": "eq", "value": "x"}]},
        [
            (
                'params.filters[0].column: unknown filter "hidden"; known: carrier, flight, price, speed,'
                f" late, day, at {HINT}"
            )
        ],
    ),
    "no filters at all": (
        WHOLE,
        {"filters": [{"column": "carrier", "op": "eq", "value": "x"}]},
        [f'params.filters[0].column: unknown filter "carrier"; known: none {HINT}'],
    ),
    "51 filters": (
        DATASET,
        {"filters": [{"column": "late", "op": "is_null"}] * 51},
        ["params.filters: expected a list of 1 to 50, found 51 entries"],
    ),
    "filter is no object": (
        DATASET,
        {"filters": ["1=1"]},
        [
            'params.filters[0]: expected an object, found "1=1"',
            (
                "params.filters[0].column: unknown filter nothing; known: carrier, flight, price, speed,"
                f" late, day, at {HINT}"
            ),
        ],
    ),
    "filter with more": (
        DATASET,
        {"filters": [{"column": "late", "op": "is_null", "sql": "1=1"}]},
        ["params.filters[0].sql: unknown field; known: column, op, value"],
    ),
    "value for is_null": (
        DATASET,
        {"filters": [{"column": "late", "op": "is_null", "value": True}]},
        ["params.filters[0].value: expected no value for is_null; remove it"],
    ),
    "values too long together": (
        DATASET,
        {"filters": [{"column": "carrier", "op": "in", "value": ["x" * 4096] * 49}]},
        ["params.filters: expected at most 200000 characters of values in all, found 200704"],
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_params_are_refused(case: tuple[Mapping[str, Any], dict[str, Any], list[str]]) -> None:
    body, params, expected = case
    assert refusals(exporting.job(body, params=params)) == expected


@pytest.mark.parametrize("params", [[], "", 0, False, "text", [1]])
def test_params_of_another_shape_are_refused(params: Any) -> None:
    (error,) = refusals(exporting.job(DATASET, params=params))
    assert error.startswith("params: expected an object, found")


POSITIONS = ("column", "filter column", "operator", "batch", "format", "time")
HOSTILE = {
    "quote break": "x' OR '1'='1",
    "comment": "carrier--",
    "union": "carrier UNION SELECT 1",
    "stacked": "carrier; DROP TABLE flights",
    "function call": "pg_sleep(10)",
    "dotted name": "pg_catalog.pg_authid",
    "quoted identifier": '"carrier"',
    "homoglyph": "c\u0430rrier",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("position", POSITIONS)
def test_hostile_text_is_refused_where_a_name_is_expected(position: str, payload: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "column": {"params": {"columns": [payload]}},
        "filter column": {"params": {"filters": [{"column": payload, "op": "eq", "value": "x"}]}},
        "operator": {"params": {"filters": [{"column": "carrier", "op": payload, "value": "x"}]}},
        "batch": {"params": {"batches": [payload]}},
        "format": {"params": {"format": payload}},
        "time": {"time_range": {"from": payload, "to": payload}},
    }
    assert refusals(exporting.job(DATASET, **changes[position]))


INSTANT = 'an instant with offset such as "2013-01-31T05:00:00Z"'


@pytest.mark.parametrize(
    ("time_range", "expected"),
    [
        (
            {},
            [
                f"timeRange.from: expected {INSTANT}, found nothing",
                f"timeRange.to: expected {INSTANT}, found nothing",
            ],
        ),
        (
            {"from": "2013-01-01", "to": "2013-01-02T00:00:00Z"},
            [f'timeRange.from: expected {INSTANT}, found "2013-01-01"'],
        ),
        (
            {"from": "2013-01-02T00:00:00+01:00", "to": "2013-01-01T23:00:00Z"},
            [
                (
                    "timeRange.to: expected an instant after 2013-01-01T23:00:00+00:00,"
                    " found 2013-01-01T23:00:00+00:00"
                )
            ],
        ),
        (
            {"from": "2013-01-01T00:00:00Z", "to": "2013-01-02T00:00:00Z", "zone": "UTC"},
            ["timeRange.zone: unknown field; known: from, to"],
        ),
    ],
)
def test_a_bad_time_range_is_refused(time_range: Any, expected: list[str]) -> None:
    assert refusals(exporting.job(DATASET, time_range=time_range)) == expected


def test_a_time_range_needs_a_time_column() -> None:
    request = exporting.job(WHOLE, time_range={"from": "2013-01-01T00:00:00Z", "to": "2013-01-02T00:00:00Z"})
    assert refusals(request) == ["timeRange: this dataset has no time column; remove the field"]


def test_all_faults_are_told_at_once() -> None:
    request = exporting.job(
        DATASET,
        params={
            "batches": ["ZZ"],
            "columns": ["pilot"],
            "filters": [{"column": "x"}],
            "format": 1,
            "extra": 1,
        },
        time_range=[],
    )
    assert [error.partition(":")[0] for error in refusals(request)] == [
        "params.extra",
        "params.columns[0]",
        "params.filters[0].column",
        "timeRange",
        "timeRange.from",
        "timeRange.to",
        "params.batches[0]",
        "params.format",
    ]


# ---------------------------------------------------------------- job types


@pytest.mark.parametrize("where", ["parameters", "definition"])
def test_a_number_of_a_record_that_would_lose_digits_is_refused(where: str) -> None:
    """Other services write JSON into records of Kafka: what comes out of the codec has every digit."""
    number = Decimal("1231231231231234123.5")
    sent = exporting.job(DATASET, params={"filters": [{"column": "price", "op": "eq", "value": number}]})
    at = "params.filters[0].value"
    if where == "definition":
        sent, at = (
            exporting.job({**DATASET, "limits": {"max_rows": number}}),
            "definition.body.limits.max_rows",
        )
    record = schemas.codec().decode("job.requested", schemas.codec().encode(sent))
    assert isinstance(record, JobRequested)
    wanted = "a number that a 64-bit float keeps exactly (up to 17 digits)"
    message = f"expected {wanted}, found {number}; write it as text where text is taken"
    with pytest.raises(Refused) as refused:
        jobs.plan(record)
    assert refused.value.errors == (FieldError(at, message),)


@pytest.mark.parametrize("value", [0.1, 123456789012345.25, 1e22, "1231231231231234123.5", "1" + "0" * 40])
def test_a_value_of_a_decimal_column_keeps_every_digit(value: Any) -> None:
    sent = exporting.job(DATASET, params={"filters": [{"column": "price", "op": "eq", "value": value}]})
    record = schemas.codec().decode("job.requested", schemas.codec().encode(sent))
    assert isinstance(record, JobRequested)
    (step,) = jobs.plan(record)
    assert Decimal(step.parameters["filters"][0]["value"]) == Decimal(str(value))


def test_an_unknown_job_type_lists_the_known_ones() -> None:
    request = exporting.job(None, job_type="import")
    assert refusals(request) == ['jobType: unknown job type "import"; known: export, noop, pipeline']


def test_an_export_needs_a_dataset() -> None:
    expected = ["dataset: expected the id of a dataset, found nothing; GET /v1/datasets lists them"]
    assert refusals(exporting.job(None)) == expected
    other = Definition(kind="schedule", id="x", revision=1, body={})
    assert refusals(exporting.job(None, definition=other)) == expected


def test_an_export_over_a_bad_definition_tells_its_faults() -> None:
    errors = refusals(exporting.job({**DATASET, "table": "pg_catalog.pg_authid"}))
    assert errors == ["definition.body.table: schema pg_catalog belongs to PostgreSQL and is not exported"]


def test_a_noop_is_one_step_that_takes_nothing() -> None:
    (step,) = jobs.plan(exporting.job(None, job_type="noop"))
    assert (step.name, step.kind, step.parameters, step.timeout_s) == ("noop", "NOOP", {}, 600)
    time_range = {"from": "2013-01-01T00:00:00Z", "to": "2013-01-02T00:00:00Z"}
    asked = exporting.job(DATASET, job_type="noop", params={"size": 1}, time_range=time_range)
    assert refusals(asked) == [
        "params.size: unknown field; known: none",
        "timeRange: a noop has no time range; remove the field",
        "dataset: a noop has no dataset; remove the field",
    ]


def test_every_planned_kind_and_format_can_be_run() -> None:
    alone = {
        jobs.plan(exporting.job(DATASET))[0].kind,
        jobs.plan(exporting.job(None, job_type="noop"))[0].kind,
    }
    assert alone | {*KINDS} - {"WAIT_FOR_APPROVAL"} == {
        *STEPS,
        *CALLS,
    }  # an approval needs people and no worker
    assert {*dataset.FORMATS} == {*FORMATS}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PARAMS = JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(jobs.export.PARAMS, JSON))
BODIES = JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(dataset.KEYS, JSON))


def refused_or_done(attempt: Callable[[], object]) -> tuple[FieldError, ...] | None:
    try:
        attempt()
    except Refused as refused:
        return refused.errors
    return None


@settings(max_examples=60)
@given(PARAMS, BODIES)
def test_whatever_is_asked_is_done_or_refused_in_printable_words(params: Any, body: Any) -> None:
    for attempt in (lambda: planned(params=params), lambda: dataset.parse(body)):
        errors = refused_or_done(attempt)
        assert errors is None or errors
        assert all(str(error).encode("utf-8") for error in errors or ())

"""`contentFilters`: a search for contents (courses, question sets) that narrows what a report is about.

    {"request": {"filters": {"identifier": ["do_1"], "prevState": "Draft"}, "sort_by": {"createdOn": "desc"},
                 "limit": 10000, "fields": ["identifier", "name"]}}

The dataset's `content` says which column each of the search's fields is. A list of values means any of
them. With `limit` only that many contents count, the first ones in the order of `sort_by`: rows are never
cut off within one content. `fields` are the content's columns that the report has.
"""

from collections.abc import Mapping
from typing import Any

from services.jobs import filters
from services.jobs.dataset import CONTENT_KEY, Dataset
from services.jobs.fields import Fields, shown

LIMIT_MAX = 100_000
SEARCH = ("filters", "sort_by", "limit", "fields")
ORDERS = ("asc", "desc")


def parse(params: Fields, dataset: Dataset) -> tuple[list[dict[str, Any]], dict[str, Any] | None, set[str]]:
    """Filters as those of `filters.parse`; what limits the contents, if anything; columns to leave out."""
    pointer = params.pointer("contentFilters")
    if params.get("contentFilters") is None:
        return [], None, set()
    if not dataset.content:
        params.faults.add(pointer, "this dataset has no content to search; remove the field")
        return [], None, set()
    search = params.object("contentFilters", ("request",)).object("request", SEARCH)
    return _filters(search, dataset), _first(search, dataset), _left_out(search, dataset)


def _filters(search: Fields, dataset: Dataset) -> list[dict[str, Any]]:
    parsed = []
    for field, column, value, at in _named(search, "filters", dataset):
        if isinstance(value, list):
            if not 1 <= len(value) <= filters.IN_VALUES_MAX:
                wanted = f"1 to {filters.IN_VALUES_MAX} values"
                search.faults.add(at, f"expected {wanted} of {field}, found {len(value)}")
            checked: Any = [
                filters.checked(column, item, f"{at}[{index}]", search.faults)
                for index, item in enumerate(value[: filters.IN_VALUES_MAX])
            ]
        else:
            checked = filters.checked(column, value, at, search.faults)
        op = "in" if isinstance(value, list) else "eq"
        parsed.append({"column": column.name, "type": column.type.value, "op": op, "value": checked})
    return parsed


def _first(search: Fields, dataset: Dataset) -> dict[str, Any] | None:
    order = []
    for _, column, value, at in _named(search, "sort_by", dataset):
        if value not in ORDERS:
            search.faults.add(at, f"expected {' or '.join(ORDERS)}, found {shown(value)}")
        order.append({"column": column.name, "descending": value == "desc"})
    limit = search.get("limit")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
        wanted = f"a whole number from 1 to {LIMIT_MAX}"
        search.faults.add(search.pointer("limit"), f"expected {wanted}, found {shown(limit)}")
    return {"column": dataset.content[CONTENT_KEY], "order": order, "limit": limit}


def _named(search: Fields, name: str, dataset: Dataset) -> list[tuple[str, Any, Any, str]]:
    """The entries of an object whose keys are fields of the content: field, column, value, pointer."""
    inner = search.object(name, dataset.content)
    given = search.get(name)
    return [
        (field, dataset.column(dataset.content[field]), value, inner.pointer(field))
        for field, value in (given.items() if isinstance(given, Mapping) else ())
        if field in dataset.content
    ]


def _left_out(search: Fields, dataset: Dataset) -> set[str]:
    fields = search.names("fields", "field", dataset.content, count_max=len(dataset.content))
    kept = {dataset.content[field] for field in fields}
    return set(dataset.content.values()) - kept if fields else set()

"""Something to export on a new machine: a dataset over `millstream dev`'s table, and a request for it."""

from typing import Any

from services.cli.dev.parts import SOURCE
from services.cli.dev.sample import TABLE
from services.cli.rest import Api

DATASET_ID = "sample-orders"
DATASET: dict[str, Any] = {
    "source": SOURCE,
    "table": TABLE,
    "description": "Orders of a shop that never was",
    "columns": [
        {"name": "id", "type": "integer"},
        {"name": "ordered_at", "type": "timestamp"},
        {"name": "region", "type": "string"},
        {"name": "customer", "type": "string"},
        {"name": "items", "type": "integer"},
        {"name": "total", "type": "decimal"},
    ],
    "batch": {"column": "region", "values": ["north", "south", "east", "west"]},
    "filters": ["region", "items", "ordered_at"],
    "time_column": "ordered_at",
    "order_by": ["id"],
}
REQUEST = {"jobType": "export", "dataset": DATASET_ID, "name": "Sample export"}


def ensure_dataset(api: Api) -> None:
    """Describe the table to the api; the same description makes no new revision. Raises Failed."""
    api.request("PUT", f"/v1/datasets/{DATASET_ID}", body=DATASET)

"""Another service asks for an export through Kafka alone, importing nothing of ours.

python examples/request_export.py BOOTSTRAP "$(date -u +%FT%TZ)" DATASET [BATCH ...]
prints the execution id; the same command with the same instant is the same execution. A record that cannot
run ends in the topic `job.requested.dlq` with its reason.
"""

import hashlib
import io
import json
import struct
import sys
from datetime import datetime
from pathlib import Path

import fastavro
from confluent_kafka import Producer

TENANT, SERVICE = "demo", "warehouse"
SCHEMAS = Path(__file__).parents[1] / "schemas"


def schema_of(name: str) -> tuple[int, fastavro.types.Schema]:
    """The newest number and schema of a record, from the checked-in manifest."""
    lines = json.loads((SCHEMAS / "manifest.json").read_text())["schemas"]
    line = max((line for line in lines if line["name"] == name), key=lambda line: line["version"])
    return line["id"], fastavro.parse_schema(json.loads((SCHEMAS / line["file"]).read_text()))


def main(bootstrap: str, instant: str, dataset: str, *batches: str) -> None:
    """Produce one `job.requested` and wait for the broker's acknowledgement."""
    asked_for = repr((SERVICE, instant, dataset, batches))
    execution_id = hashlib.sha256(asked_for.encode()).hexdigest()[:40]
    params = {"batches": list(batches)} if batches else {}
    number, schema = schema_of("millstream.commands.JobRequested")
    value = io.BytesIO(struct.pack(">bI", 0, number))
    value.seek(0, io.SEEK_END)
    record = {
        "execution_id": execution_id,
        "tenant": TENANT,
        "requested_at": datetime.fromisoformat(instant),
        "created_by": SERVICE,
        "name": f"{dataset} for {SERVICE}",
        "job_type": "export",
        "definition_id": dataset,
        "parameters": json.dumps({"params": params, "time_range": None}),
    }
    fastavro.schemaless_writer(value, schema, record)
    # The key's hash must be Kafka's own, or the record lands on a partition where it is refused.
    settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random"}
    producer = Producer(settings)
    producer.produce("job.requested", key=execution_id, value=value.getvalue())
    if producer.flush(30):
        sys.exit(f"{bootstrap} did not acknowledge the record within 30 s")
    print(execution_id)


if __name__ == "__main__":
    if len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

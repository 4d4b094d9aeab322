"""Another service reads every event from the beginning, in a group of its own, importing nothing of ours.

python examples/follow_events.py BOOTSTRAP GROUP [EXECUTION_ID]
prints one JSON object a line; with an id it stops at that execution's end.
"""

import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer

SCHEMAS = Path(__file__).parents[1] / "schemas"
ENDS = {"execution.completed", "execution.failed", "execution.rejected"}


def schemas() -> dict[int, fastavro.types.Schema]:
    """Every schema by its number, from the checked-in manifest."""
    lines = json.loads((SCHEMAS / "manifest.json").read_text())["schemas"]
    return {
        line["id"]: fastavro.parse_schema(json.loads((SCHEMAS / line["file"]).read_text())) for line in lines
    }


def decode(known: dict[int, fastavro.types.Schema], value: bytes) -> Any:
    """Confluent's frame: a zero byte, the schema's number, the Avro body."""
    _, number = struct.unpack_from(">bI", value)
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), known[number], None)


def main(bootstrap: str, group: str, only: str | None = None) -> None:
    """Follow until interrupted, or until the execution ends."""
    known, seen = schemas(), set()
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe(["execution.events"])
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None or message.error() or (only and message.key() != only.encode()):
                continue
            event = decode(known, message.value() or b"")
            if event["event_id"] in seen:  # delivered at least once: an id is applied once
                continue
            seen.add(event["event_id"])
            headers: Any = message.headers() or []
            kind = dict(headers)["ce_type"].decode()
            print(json.dumps({"type": kind, **event}, default=str), flush=True)
            if only and kind in ENDS:
                return
    finally:
        consumer.close()


if __name__ == "__main__":
    if len(sys.argv) <= 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])

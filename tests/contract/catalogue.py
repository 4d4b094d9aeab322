"""The checked-in schemas, manifest and examples as tests see them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fastavro.schema
import msgspec

from services.contracts.codec import ON_TOPIC, RECORDS, Record

FOLDER = Path(__file__).parents[2] / "schemas"


@dataclass(frozen=True)
class Line:
    """One line of the manifest, with its schema as JSON."""

    id: int
    name: str
    version: int
    file: str
    fingerprint: str
    schema: dict[str, Any]

    @property
    def record(self) -> type[Record]:
        """The class of its records."""
        return RECORDS[self.name]

    @property
    def topic(self) -> str:
        """The topic that carries it."""
        return next(topic for topic, records in ON_TOPIC.items() if self.record in records)

    @property
    def is_event(self) -> bool:
        """Whether its records are kept for ever."""
        return self.name.startswith("millstream.events.")

    @property
    def examples(self) -> list[Path]:
        """Its example files in order."""
        return sorted((FOLDER / "examples" / Path(self.file).stem).glob("*.json"))


@cache
def manifest() -> tuple[Line, ...]:
    """Every line, in file order."""
    lines = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["schemas"]
    return tuple(Line(**line, schema=json.loads((FOLDER / line["file"]).read_text())) for line in lines)


def example(line: Line, path: Path) -> Record:
    """The record that an example file describes."""
    record: Record = msgspec.json.decode(path.read_bytes(), type=line.record)
    return record


def fingerprint(schema: dict[str, Any]) -> str:
    """SHA-256 of the schema's Parsing Canonical Form (Avro 1.12, "Parsing Canonical Form for Schemas")."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return str(fastavro.schema.fingerprint(canonical, "SHA-256"))

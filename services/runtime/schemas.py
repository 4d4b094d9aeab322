"""Loads the checked-in Avro schemas."""

import json
from functools import cache
from pathlib import Path

from services.contracts.codec import Codec

FOLDER = Path(__file__).parents[2] / "schemas"


@cache
def codec() -> Codec:
    """The codec over `schemas/manifest.json`; files are read once per process."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    return Codec(
        {line["id"]: json.loads((FOLDER / line["file"]).read_text()) for line in manifest["schemas"]}
    )

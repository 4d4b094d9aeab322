"""Export formats: one file and one line in FORMATS each."""

from collections.abc import Mapping

from services.executor.formats.csv import CSV
from services.executor.formats.format import Format

FORMATS: Mapping[str, Format] = {
    "csv": CSV,
}

"""The names that files of an execution have for readers: each is unique in its execution.

An export of its own writes `report.csv` or `reports-<batch>.csv`, and `manifest.json`. A step of a pipeline
puts its name before them, `<step>~report.csv`; from its second visit on, the visit comes last:
`<step>~report~2.csv`. No batch has a `~`, so no two steps, visits or batches give the same name, whatever the
names of the steps are.
"""

from collections.abc import Container
from itertools import count

MANIFEST = "manifest.json"
MANIFESTS = r"(^|~)manifest(~[0-9]+)?\.json$"
"""A regular expression, for PostgreSQL and Python, that finds manifests among the names of files."""

CHARS_MAX = 240
"""The name of a step (100), of a batch (108), and what is around them; file systems take 255 bytes."""


def of_step(step: str, name: str, visit: int = 1) -> str:
    """The name of a pipeline's file. `name` is what an export of its own would call it."""
    stem, dot, ending = name.rpartition(".")
    return f"{step}~{name}" if visit <= 1 else f"{step}~{stem}~{visit}{dot}{ending}"


def free(step: str, name: str, taken: Container[str]) -> str:
    """The name under which a file is kept: its own, or if another file has that, the step's next one.

    Steps of a pipeline once wrote `report.csv` each, and those events stay as they are.
    """
    if name not in taken:
        return name
    return next(one for one in (of_step(step, name, visit) for visit in count(1)) if one not in taken)

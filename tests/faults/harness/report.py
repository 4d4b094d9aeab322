"""The table of a fault run: printed, and written to results.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "results.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One round. Counts from `accepted` on are totals of the run so far, as the log is."""

    round: int
    seed: int
    kills: dict[str, int]
    hits: dict[str, int]
    asked: int
    accepted: int
    ends: dict[str, int]
    webhooks: int
    duplicates: int
    leftovers: int
    failed_starts: int
    recoveries: list[float]


def say(config: pytest.Config, text: str) -> None:
    """Print at once, past pytest's capture."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        writer = config.get_terminal_writer()
        writer.line("\n" + text)
        writer.flush()


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None without values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    head = (
        "| round | seed | kill -9 | crash points hit | asked | accepted so far | ended so far | webhook calls"
        " | duplicates so far | work lost with a worker so far | ran again p50 / p99 / max |"
    )
    lines = [head, "|" + "---|" * 11]
    for row in rows:
        kills = ", ".join(f"{name} {count}" for name, count in sorted(row.kills.items()))
        hits = ", ".join(f"{name} {count}" for name, count in sorted(row.hits.items()))
        ends = ", ".join(f"{count} {name.removeprefix('execution.')}" for name, count in row.ends.items())
        p50, p99 = percentile(row.recoveries, 0.5), percentile(row.recoveries, 0.99)
        recovered = f"{p50} / {p99} / {round(max(row.recoveries, default=0), 1)} s"
        cells = (
            *(row.round, row.seed, kills, hits, row.asked, row.accepted, ends, row.webhooks),
            *(row.duplicates, len(row.recoveries), recovered),
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def write(rows: Sequence[Row]) -> None:
    """Replace results.json."""
    RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")

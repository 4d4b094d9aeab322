"""What a benchmark measures, and how its figure follows from the samples; no I/O.

A module of this folder that measures something has

    FIGURES: tuple[Figure, ...]
    def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]: ...

`rounds` prepares what it needs, then yields once a round: for each figure by name what was measured of
Millstream and of the peer, one after the other, so that both saw the same machine.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROUNDS_MIN = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of ours and one of the peer's, in the same unit; None for a figure without a peer."""

    ours: float
    peer: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A goal. `better` is higher or lower; `unit` is that of the samples; `about` says what was done."""

    name: str
    goal: float
    better: str
    unit: str
    about: str
    peer: str = ""


def figure(samples: Sequence[float], peer_samples: Sequence[float]) -> float:
    """The ratio of the medians, ours over the peer's; without a peer the median itself."""
    own = statistics.median(samples)
    return round(own / statistics.median(peer_samples), 3) if peer_samples else round(own, 3)


def holds(value: float, goal: float, better: str) -> bool:
    """Whether the goal is met."""
    return value >= goal if better == "higher" else value <= goal


def result(wanted: Figure, found: Sequence[Sample], environment: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of results.json."""
    samples = [round(sample.ours, 4) for sample in found]
    peers = [round(sample.peer, 4) for sample in found if sample.peer is not None]
    value = figure(samples, peers)
    return {
        "name": wanted.name,
        "figure": value,
        "goal": wanted.goal,
        "better": wanted.better,
        "holds": holds(value, wanted.goal, wanted.better),
        "unit": wanted.unit,
        "about": wanted.about,
        "peer": wanted.peer,
        "samples": samples,
        "peer_samples": peers,
        **environment,
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Results as Markdown."""
    lines = ["| name | figure | goal | holds | ours | peer | rounds |", "|---|---|---|---|---|---|---|"]
    for entry in results:
        sign = ">=" if entry["better"] == "higher" else "<="
        factor = "x" if entry["peer_samples"] else f" {entry['unit']}"
        peer = _median(entry["peer_samples"], entry["unit"]) if entry["peer_samples"] else "-"
        lines.append(
            f"| `{entry['name']}` | {entry['figure']:g}{factor} | {sign} {entry['goal']:g}{factor}"
            f" | {'yes' if entry['holds'] else 'no'} | {_median(entry['samples'], entry['unit'])}"
            f" | {peer} | {len(entry['samples'])} |"
        )
    return "\n".join(lines)


def _median(samples: Sequence[float], unit: str) -> str:
    return f"{statistics.median(samples):.4g} {unit}"

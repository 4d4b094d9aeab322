"""A pipeline that passed its checks."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.contracts.commands import Json
from services.contracts.flow import Flow
from services.jobs.pipeline.values import FormField
from services.jobs.pipeline.work import Work

PRIORITIES: Mapping[str, int] = {"low": 0, "normal": 1, "high": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its `work`, and the `calls` of its hooks, are checked and not filled yet.

    `at` is where the definition writes it.
    """

    name: str
    at: str
    kind: str
    work: Work
    calls: tuple[Work, ...]
    flow: Flow
    timeout_s: int
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `max` executions with this key at one time; a paused one counts when `holds_paused`.

    `key` is `pipeline`, `tenant`, or `key:<text>` whose placeholders take values of the request.
    """

    key: str
    max: int
    holds_paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A checked definition. The first of `steps` runs first; the others follow as their flows say.

    `datasets` are the ids that EXPORT steps name, `pinned` the bodies that the definition holds of them.
    """

    name: str | None
    description: str | None
    form: tuple[FormField, ...]
    steps: tuple[Step, ...]
    limits: tuple[Limit, ...]
    priority: int
    timeout_s: int | None
    pinned: Mapping[str, Json]
    datasets: frozenset[str]

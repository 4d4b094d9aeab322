"""Pipelines: definitions of steps in a chain (S3), with services, hooks and gotos (S2). docs/pipelines.md.

`load` reads every form alike, `check` finds every fault, `compile` makes the plan of a request.
"""

from services.jobs.pipeline.check import parse, parsed
from services.jobs.pipeline.compile import form_of, given_values, limits_of, plan
from services.jobs.pipeline.edit import (
    datasets_named,
    with_action,
    with_datasets,
    with_hook,
    with_service,
)
from services.jobs.pipeline.removal import without_action, without_hook, without_service
from services.jobs.pipeline.shape import Pipeline

__all__ = [
    "Pipeline",
    "datasets_named",
    "form_of",
    "given_values",
    "limits_of",
    "parse",
    "parsed",
    "plan",
    "with_action",
    "with_datasets",
    "with_hook",
    "with_service",
    "without_action",
    "without_hook",
    "without_service",
]

"""Kinds of steps in a pipeline: one file and one line in KINDS each.

What a worker does for one is its file and line in services/executor/steps; WAIT_FOR_APPROVAL has no worker.
"""

from collections.abc import Mapping

from services.jobs.pipeline.kinds.api import API
from services.jobs.pipeline.kinds.approval import APPROVAL
from services.jobs.pipeline.kinds.export import EXPORT
from services.jobs.pipeline.kinds.kind import Kind
from services.jobs.pipeline.kinds.noop import NOOP
from services.jobs.pipeline.kinds.transform import TRANSFORM

KINDS: Mapping[str, Kind] = {
    "API": API,
    "EXPORT": EXPORT,
    "NOOP": NOOP,
    "TRANSFORM": TRANSFORM,
    "WAIT_FOR_APPROVAL": APPROVAL,
}

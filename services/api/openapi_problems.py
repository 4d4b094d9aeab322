"""Which problems each operation can answer. A test reads them from the code and compares."""

from collections.abc import Mapping
from typing import Any

from services.api.problems import KINDS

CRASH = 500
ALWAYS = (400, 429)  # of parameters and rates, wherever a key is asked for
_READ = (401, 404, 503)
_LIST = (401, 503)
_FOLLOW = (401, 404, 503)
_COMMANDS = ("start", "cancel", "pause", "resume", "rerun", "amend")
_WRITE = (401, 403, 408, 413, 415, 503)

STATUSES: Mapping[str, tuple[int, ...]] = {
    "describe": (401, 503),
    "describeTopics": (401, 503),
    "describeTopicsAsYaml": (401, 503),
    "whoAmI": (401, 503),
    "putDataset": (*_WRITE, 412),
    "getDataset": _READ,
    "listDatasets": _LIST,
    "listDatasetRevisions": (*_LIST, 404),
    "deleteDataset": (401, 403, 404, 412, 503),
    "putPipeline": (*_WRITE, 412),
    "getPipeline": _READ,
    "listPipelines": _LIST,
    "listPipelineRevisions": (*_LIST, 404),
    "deletePipeline": (401, 403, 404, 412, 503),
    "putService": (*_WRITE, 404, 412),
    "deleteService": (401, 403, 404, 412, 503),
    "putAction": (*_WRITE, 404, 412),
    "deleteAction": (401, 403, 404, 412, 503),
    "addHook": (*_WRITE, 404, 412),
    "deleteHook": (401, 403, 404, 412, 503),
    "submitExecution": (*_WRITE, 409),
    "listExecutions": _LIST,
    "getExecution": _READ,
    "listExecutionEvents": _FOLLOW,
    "getStepLog": _FOLLOW,
    "cancelExecution": (*_WRITE, 404, 409, 422),
    "rerunExecution": (*_WRITE, 404, 409, 422),
    "createRequest": (*_WRITE, 409),
    "listRequests": _LIST,
    "getRequest": _READ,
    "listApprovals": _LIST,
    **{f"{verb}Request": (*_WRITE, 404, 409, 422) for verb in _COMMANDS},
    **{f"{verb}Step": (*_WRITE, 404, 409, 422) for verb in ("approve", "reject", "remark")},
    "submitJobRequest": (*_WRITE, 409),
    "readJobRequest": _READ,
    "listJobRequests": (401, 503),
    "searchJobRequests": (401, 408, 413, 415, 503),
    "headFile": (404, 429, 503),
    "getFile": (404, 429, 503),
    "revokeLinks": (401, 403, 404, 503),
}
TITLES: Mapping[int, str] = {
    status: "; or: ".join(title for code, title in KINDS.values() if code == status)
    for status in {code for code, _ in KINDS.values()}
}


def spell_out(operation: dict[str, Any], content: Mapping[str, Any]) -> None:
    """Put each status in the place of `default`, in its form; `content` is that of a problem."""
    answers = operation["responses"]
    form = answers.pop("default", {"content": content})
    own = {*STATUSES.get(operation["operationId"], ()), CRASH}
    for status in sorted(own.union(ALWAYS) if 401 in own else own):
        answers.setdefault(str(status), {**form, "description": TITLES[status]})

"""WAIT_FOR_APPROVAL: the pipeline goes on when somebody has approved (S3 3.3). No parameter is required.

step_type: WAIT_FOR_APPROVAL
parameters:
  approvers: [ada, grace]     # principals; nobody named = every operator and admin
  groups: [finance]
  quorum: 2                   # different people
  form: [{name: cost_centre, type: string}]
  expires_after_s: 86400
  on_expiry: fail             # or cancel (the execution), or skip (the step)
"""

from services.contracts import names
from services.contracts.commands import Json
from services.jobs.fields import Fields, listed, shown
from services.jobs.pipeline import form, policies
from services.jobs.pipeline.kinds.kind import Kind
from services.jobs.pipeline.work import Work

EXPIRES_AFTER_S = 30 * policies.DAY_S
EXPIRES_AFTER_MAX_S = 366 * policies.DAY_S
ON_EXPIRY = ("fail", "cancel", "skip")
NAMED_MAX = 100
QUORUM_MAX = 20


def _read(parameters: Fields) -> Work:
    approvers, groups = _named(parameters, "approvers"), _named(parameters, "groups")
    quorum = policies.whole(parameters, "quorum", QUORUM_MAX, 1)
    if approvers and not groups and quorum > len(approvers):
        wanted = f"at most {len(approvers)}, as many as there are approvers"
        parameters.faults.add(parameters.pointer("quorum"), f"expected {wanted}, found {quorum}")
    read: dict[str, Json] = {
        "approvers": approvers,
        "groups": groups,
        "quorum": quorum,
        "form": [field.as_json() for field in form.read(parameters)],
        "expires_after_s": policies.whole(
            parameters, "expires_after_s", EXPIRES_AFTER_MAX_S, EXPIRES_AFTER_S
        ),
        "on_expiry": _on_expiry(parameters),
    }
    return Work(read)


def _named(parameters: Fields, key: str) -> list[str]:
    found: list[str] = []
    places: dict[str, int] = {}
    for pointer, item in parameters.items(key, count_max=NAMED_MAX):
        if not isinstance(item, str) or not names.PRINCIPAL.fullmatch(item):
            wanted = "a name of 1 to 64 of A-Z a-z 0-9 . _ @ -"
            parameters.faults.add(pointer, f"expected {wanted}, found {shown(item)}")
        elif (person := names.person(item)) in places:
            parameters.faults.add(pointer, f"{shown(item)} is already at index {places[person]}")
        else:
            places[person] = len(found)
            found.append(item)
    return found


def _on_expiry(parameters: Fields) -> str:
    value = parameters.get("on_expiry")
    if value is None:
        return ON_EXPIRY[0]
    if not isinstance(value, str) or value not in ON_EXPIRY:
        message = f"unknown action {shown(value)}; known: {listed(ON_EXPIRY)}"
        parameters.faults.add(parameters.pointer("on_expiry"), message)
        return ON_EXPIRY[0]
    return value


APPROVAL = Kind(
    read=_read,
    keys=("approvers", "groups", "quorum", "form", "expires_after_s", "on_expiry"),
    timeout_s=EXPIRES_AFTER_S,
    timeout_key="expires_after_s",
    max_attempts=1,
)

"""WAIT_FOR_APPROVAL: who may decide, on what, how often, until when (S3 3.3).

    {approvers: [principal], groups: [group], quorum: 1, form: [field], expires_after_s, on_expiry}

Nobody named = whoever has the role operator or admin. Nobody approves what they asked for or amended,
whichever of their keys or bots they use, and a person counts once. There is no way around the list: each
refusal is an event. A consent is to `content_hash`: values and plan; an amendment makes it another one. It
may go without saying only where there was never another content than this one. Those who agree must also give
the same values of the form.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.contracts import events, ids, names, public
from services.contracts.commands import ExecutionCommand, Json
from services.executor.core.execution import Execution, Step
from services.executor.core.story import Story
from services.executor.core.visit import Held, Visit
from services.jobs.fields import Faults
from services.jobs.pipeline import form
from services.jobs.pipeline.values import checked
from services.jobs.refused import Refused

KIND = "WAIT_FOR_APPROVAL"
ROLES = frozenset({"operator", "admin"})
EXPIRES_AFTER_S = 30 * 24 * 3600
EXPIRED, REJECTED = "approval_expired", "approval_rejected"


class Refusal(Exception):
    """A command changes nothing: a stable reason, and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def content_hash(state: Execution, step: str, visit: int) -> str:
    """What is consented to: this visit to this step, the values of the request, each step as planned."""
    assert state.request is not None, "only what was accepted waits"
    plan = [msgspec.to_builtins(step.plan) for step in state.steps]
    return ids.body_hash([step, visit, state.request.parameters, plan])


def opened(story: Story, index: int) -> None:
    """The step waits; no worker is held."""
    step = story.execution.steps[index]
    expires_after_s = _parameters(step).get("expires_after_s") or EXPIRES_AFTER_S
    asked(story, index, story.now + timedelta(seconds=expires_after_s))


def asked(story: Story, index: int, until: datetime | None) -> None:
    """Say what is asked for; again when it has changed."""
    step = story.execution.steps[index]
    asked_for = _parameters(step)
    detail = {key: asked_for.get(key) for key in ("approvers", "groups", "form", "on_expiry")}
    story.tell(
        events.StepWaiting,
        step=step.plan.name,
        attempt=step.asked + 1,
        reason="approval",
        until=until,
        content_hash=content_hash(story.execution, step.plan.name, step.visit.number if step.visit else 1),
        detail={**detail, "quorum": quorum(step)},
    )


def quorum(step: Step) -> int:
    """How many different people must approve."""
    return int(_parameters(step).get("quorum") or 1)


def approve(story: Story, wanted: ExecutionCommand) -> tuple[int, Held] | None:
    """One consent; the step and its outcome when it was the last one needed. Raises Refusal."""
    index, step, visit = _waiting(story, wanted)
    _check_content(visit, wanted)
    _check_approver(step, wanted)
    people = names.people((wanted.requested_by, wanted.owner))
    if people & names.people(authors(story.execution)):
        raise Refusal("self_approval", "the request or a value in it is your own; somebody else must approve")
    if any(people & approval.people() for approval in visit.approvals):
        raise Refusal("already_decided", "you have approved this already; a person counts once")
    _check_unmistakable(story.execution, visit, wanted)
    values = _filled_in(step, wanted.values)
    _check_agreed(visit, values)
    count, needed = len(visit.approvals) + 1, quorum(step)
    _tell(story, wanted, step, "approved", values, count)
    if count < needed:
        return None
    decided = story.execution.steps[index].visit
    assert decided is not None, "it was waiting"
    output: dict[str, Json] = {
        "decision": "approved",
        "approved_by": [approval.by for approval in decided.approvals],
        "form": values,
    }
    if secret := _secret_fields(step):
        output["secret_fields"] = [*secret]
    return index, Held(done=True, output=output)


def authors(state: Execution) -> tuple[str, ...]:
    """Everybody whose content it is: who asked for it, and who amended it or what it repeats."""
    request = state.request
    assert request is not None, "only what was accepted waits or is repeated"
    asking = (name for name in (request.created_by, request.owner) if name is not None)
    return tuple(dict.fromkeys((*asking, *state.authors)))


def reject(story: Story, wanted: ExecutionCommand) -> tuple[int, Held]:
    """One word against it is enough, and says why. Raises Refusal."""
    index, step, visit = _waiting(story, wanted)
    _check_content(visit, wanted)
    _check_approver(step, wanted)
    if not (wanted.reason or "").strip():
        raise Refusal("reason_required", "expected a reason, found none")
    _tell(story, wanted, step, "rejected", None, len(visit.approvals))
    message = f"rejected by {wanted.requested_by}: {wanted.reason}"
    return index, Held(done=False, reason=REJECTED, message=message)


def remark(story: Story, wanted: ExecutionCommand) -> None:
    """A word that decides nothing; the requester may say one too. Raises Refusal."""
    _, step, _ = _waiting(story, wanted)
    if not (wanted.reason or "").strip():
        raise Refusal("reason_required", "expected a remark in reason, found none")
    story.tell(
        events.ApprovalRemarked, step=step.plan.name, remarked_by=wanted.requested_by, remark=wanted.reason
    )


def expired(story: Story, index: int) -> tuple[str, Held]:
    """Nobody decided in time: what the definition wants then, and the outcome."""
    step = story.execution.steps[index]
    visit = step.visit
    assert visit is not None, "it was waiting"
    action = str(_parameters(step).get("on_expiry") or "fail")
    story.tell(
        events.ApprovalDecided,
        step=step.plan.name,
        decision="expired",
        decided_by=None,
        owner=None,
        reason=action,
        form=None,
        content_hash=visit.content_hash,
        approvals=len(visit.approvals),
        quorum=quorum(step),
    )
    after_s = _parameters(step).get("expires_after_s") or EXPIRES_AFTER_S
    message = f"nobody decided within expires_after_s of {after_s} s"
    return action, Held(done=action == "skip", reason=EXPIRED, message=message, skipped=action == "skip")


def may_stand(former: Step, state: Execution) -> bool:
    """Whether a decision on an earlier execution still counts: same content, and no decider asks now."""
    visit, request = former.visit, state.request
    if visit is None or request is None:
        return False
    if visit.content_hash != content_hash(state, former.plan.name, visit.number):
        return False
    asking = names.people((request.created_by, request.owner))
    return not any(asking & word.people() for word in visit.approvals)


def _waiting(story: Story, wanted: ExecutionCommand) -> tuple[int, Step, Visit]:
    """The approval that the command is about. Raises Refusal."""
    state = story.execution
    index = _place(state, wanted.step)
    if index is None:
        decided = [step for step in state.steps if step.visit is not None and step.visit.decision is not None]
        _refuse_late(state, decided[-1] if decided else None)
        raise Refusal("not_waiting", "no approval is waiting")
    step = state.steps[index]
    visit = step.visit
    if state.status.terminal or visit is None or visit.phase != "approval":
        _refuse_late(state, step)
        raise Refusal("not_waiting", f"step {step.plan.name} does not wait for an approval")
    if visit.until is not None and wanted.requested_at >= visit.until:
        raise Refusal("expired", f"the approval expired at {visit.until.isoformat()}")
    return index, step, visit


def _place(state: Execution, name: str | None) -> int | None:
    if name is not None:
        try:
            return state.index_of(name)
        except KeyError:
            raise Refusal("unknown_step", f"the execution has no step {name}") from None
    if state.status.terminal:
        return None
    for index, step in enumerate(state.steps):
        if step.visit is not None and step.visit.phase == "approval":
            return index
    return None


def _refuse_late(state: Execution, step: Step | None) -> None:
    """The reason of a word that comes after the end of what it is about. Raises Refusal."""
    decision = step.visit.decision if step is not None and step.visit is not None else None
    if decision == "expired":
        raise Refusal("expired", "the approval expired before anybody decided")
    if decision is not None:
        raise Refusal("already_decided", f"the approval is {decision} already")
    if state.status.terminal:
        raise Refusal("already_ended", f"the execution is {state.status}; nothing waits for an approval")


def _check_content(visit: Visit, wanted: ExecutionCommand) -> None:
    if wanted.content_hash is not None and wanted.content_hash != visit.content_hash:
        raise Refusal("content_changed", "the request was amended since; look at it again")


def _check_unmistakable(state: Execution, visit: Visit, wanted: ExecutionCommand) -> None:
    """Who names no content must have seen this one: there was never another to see. Raises Refusal."""
    if wanted.content_hash is not None:
        return
    several = wanted.step is None and sum(step.plan.kind == KIND for step in state.steps) > 1
    if state.amended or visit.number > 1 or several:
        message = "there was more than one content to approve; look again, and name yours by contentHash"
        raise Refusal("content_changed", message)


def _check_approver(step: Step, wanted: ExecutionCommand) -> None:
    named = _parameters(step)
    approvers, groups = _texts(named.get("approvers")), _texts(named.get("groups"))
    if approvers or groups:
        if {wanted.requested_by, wanted.owner} & approvers or groups & frozenset(wanted.groups):
            return
        raise Refusal("not_an_approver", f"step {step.plan.name} names others as its approvers")
    if wanted.role not in ROLES:
        raise Refusal("not_an_approver", "expected the role operator or admin")


def _filled_in(step: Step, values: Json) -> dict[str, Json]:
    faults = Faults()
    try:
        found = checked(form.parse(_parameters(step).get("form") or []), values, faults, "form")
        faults.raise_if_any()
    except Refused as refused:
        raise Refusal("bad_form", "; ".join(map(str, refused.errors))) from None
    return found


def _check_agreed(visit: Visit, values: Mapping[str, Json]) -> None:
    """A quorum agrees on one thing: nobody's values silently become another's. Raises Refusal."""
    agreed = (visit.approvals[0].form or {}) if visit.approvals else values
    differing = sorted(name for name in {*agreed, *values} if agreed.get(name) != values.get(name))
    if differing:
        whose = f"{visit.approvals[0].by} approved with"
        raise Refusal("form_differs", f"form: expected what {whose}, found another {', '.join(differing)}")


def _tell(
    story: Story, wanted: ExecutionCommand, step: Step, decision: str, values: Json, approvals: int
) -> None:
    assert step.visit is not None, "it was waiting"
    story.tell(
        events.ApprovalDecided,
        step=step.plan.name,
        decision=decision,
        decided_by=wanted.requested_by,
        owner=wanted.owner,
        reason=wanted.reason,
        form=values,
        content_hash=step.visit.content_hash,
        approvals=approvals,
        quorum=quorum(step),
        secret_fields=_secret_fields(step),
    )


def _secret_fields(step: Step) -> tuple[str, ...]:
    return tuple(sorted(public.declared(_parameters(step))))


def _parameters(step: Step) -> Mapping[str, Any]:
    return step.plan.parameters if isinstance(step.plan.parameters, Mapping) else {}


def _texts(found: Json) -> frozenset[str]:
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()

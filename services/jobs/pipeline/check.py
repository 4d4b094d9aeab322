"""The check of a pipeline: everything that is wrong with a definition at once, each fault with its path."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from services.contracts.flow import Action, Flow, Retry
from services.jobs.fields import Faults, Fields, shown
from services.jobs.pipeline import chain, drafts, form, hooks, load, policies, references, services
from services.jobs.pipeline.drafts import Draft
from services.jobs.pipeline.hooks import Hook
from services.jobs.pipeline.kinds import KINDS
from services.jobs.pipeline.references import Calling
from services.jobs.pipeline.shape import Limit, Pipeline, Step
from services.jobs.pipeline.size import Size
from services.jobs.pipeline.values import FormField
from services.jobs.pipeline.work import Work

PARSED_MAX = 128


def parsed(body: Any) -> Pipeline:
    """As `parse`, for a body that was stored: every request of a pipeline brings the same one."""
    return _parsed(msgspec.json.encode(body))


@lru_cache(maxsize=PARSED_MAX)
def _parsed(text: bytes) -> Pipeline:
    # Checking takes milliseconds.
    return parse(msgspec.json.decode(text))


def parse(body: Any) -> Pipeline:
    """The pipeline that a body (decoded JSON or YAML) describes, in S3's form or S2's. Raises Refused."""
    faults = Faults()
    loaded = load.load(body, faults)
    if not loaded.steps and not faults.errors:
        wanted = f"a list of 1 to {load.STEPS_MAX} steps"
        faults.add("steps", f"expected {wanted}, found nothing: services alone run nothing")
    known = services.read(loaded.services, faults, unread=loaded.services_unread)
    read = drafts.read(loaded, known, faults)
    shape = chain.of([draft.node for draft in read], faults, complete=not loaded.ways_unread)
    by_name, calls = {draft.name: draft for draft in read}, Size(faults)
    calling = {draft.name: drafts.calls_of(draft, by_name, known, calls, faults) for draft in read}
    steps = _steps(loaded.top, read, calling)
    whole = Size(faults)
    for step in steps.values():
        whole.add((step.work.parameters, step.flow))
    before = len(faults)
    declared = form.read(loaded.top)
    # Of a form with faults nobody knows which values it was to name: what is used is no fault of its own.
    given = loaded.top.get("form") is not None and len(faults) == before
    limits = policies.limits(loaded.top)
    fields = declared if given else references.derived(references.paths_read(read, calling, limits))
    values = frozenset(field.name for field in fields)
    pipeline = _pipeline(loaded.top, read, tuple(steps[name] for name in shape.order), limits, fields)
    errors = [
        *references.unknown_in_steps(read, calling, shape, values),
        *references.idle_actions(known, calling, read, values, given=given),
        *references.limit_faults(limits, values),
    ]
    for error in dict.fromkeys(errors):  # an action that several hooks call is written once
        faults.add(error.pointer, error.message)
    faults.raise_if_any()
    return pipeline


def _pipeline(
    top: Fields,
    read: Sequence[Draft],
    steps: tuple[Step, ...],
    limits: tuple[Limit, ...],
    fields: tuple[FormField, ...],
) -> Pipeline:
    pinned, named = _pinned(top, read)
    return Pipeline(
        name=top.text("name", required=False, chars_max=200),
        description=top.text("description", required=False, chars_max=4000),
        form=fields,
        steps=steps,
        limits=limits,
        priority=policies.priority(top),
        timeout_s=policies.whole(top, "timeout_s", policies.EXECUTION_TIMEOUT_MAX_S, None),
        pinned=pinned,
        datasets=named,
    )


def _steps(top: Fields, read: Iterable[Draft], calling: Calling) -> dict[str, Step]:
    runs = policies.whole(top, "max_step_runs", policies.STEP_RUNS_MAX, policies.STEP_RUNS_MAX)
    return {draft.name: _finished(draft, calling[draft.name], runs) for draft in read}


def _pinned(top: Fields, read: Iterable[Draft]) -> tuple[Mapping[str, Any], frozenset[str]]:
    named = {
        draft.fields.pointer("parameters.dataset"): draft.work.parameters.get("dataset")
        for draft in read
        if draft.kind == "EXPORT"
    }
    pinned = top.get(load.PINNED)
    if pinned is not None and not isinstance(pinned, Mapping):
        top.faults.add(load.PINNED, f"expected an object, found {shown(pinned)}")
        pinned = None
    for pointer, dataset in named.items():
        if pinned is not None and isinstance(dataset, str) and dataset not in pinned:
            top.faults.add(pointer, f"unknown dataset {shown(dataset)}; GET /v1/datasets lists them")
    for name, held in (pinned or {}).items():
        Fields(held, f"{load.PINNED}.{name}", ("revision", "body"), top.faults)
    return pinned or {}, frozenset(name for name in named.values() if isinstance(name, str))


def _finished(draft: Draft, calling: Mapping[str, Work], runs: int) -> Step:
    fields, kind = draft.fields, KINDS[draft.kind]
    fields.text("description", required=False, chars_max=4000)
    retry, attempts = policies.retry(fields, kind.max_attempts)
    _, others = hooks.parted(draft.hooks)
    made = [_action(hook, calling) for hook in others]
    timeout_s = kind.timeout_s
    if kind.timeout_key is not None:
        timeout_s = draft.work.parameters[kind.timeout_key]
        for key in ("timeout_s", "total_timeout_s"):
            if fields.get(key) is not None:
                message = f"expected none: the parameter {kind.timeout_key} bounds {draft.kind}"
                fields.faults.add(fields.pointer(key), message)
    timeout_s, total_s = policies.timeouts(fields, timeout_s)
    return Step(
        name=draft.name,
        at=draft.at,
        kind=draft.kind,
        work=draft.work,
        calls=tuple(calling.values()),
        flow=replace(
            _flow(fields, tuple(edge.to for edge in draft.node.next), tuple(made), retry, runs),
            total_timeout_s=total_s,
        ),
        timeout_s=timeout_s,
        max_attempts=attempts,
    )


def _flow(
    fields: Fields, following: tuple[str, ...], actions: tuple[Action, ...], retry: Retry, runs: int
) -> Flow:
    return Flow(
        next=following,
        actions=actions,
        retry=retry,
        queue_timeout_s=policies.queue_timeout_s(fields),
        wait_before_s=policies.number(fields, "wait_before_s", policies.WAIT_MAX_S, 0.0),
        wait_after_s=policies.number(fields, "wait_after_s", policies.WAIT_MAX_S, 0.0),
        pause_before=policies.flag(fields, "pause_before"),
        fail_on=hooks.condition(fields, "fail_on"),
        max_step_runs=runs,
    )


def _action(hook: Hook, calling: Mapping[str, Work]) -> Action:
    call = calling.get(hook.at)
    goes = hook.step is not None and hook.on != "enter"
    return Action(
        written=hook.written,
        kind="call" if call else "goto" if goes else "noop",
        on=hook.on,
        step=hook.step if goes else None,
        parameters=call.parameters if call else None,
        when=hook.when,
        wait=hook.wait,
        timeout_s=hook.timeout_s,
        max_attempts=hook.max_attempts,
    )

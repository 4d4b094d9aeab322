"""What steps and hooks refer to: values of the request, earlier steps, secrets; whether there are such."""

from collections.abc import Iterable, Mapping, Sequence

from services.contracts.errors import FieldError
from services.jobs.pipeline import form, hooks
from services.jobs.pipeline.chain import Chain
from services.jobs.pipeline.drafts import Draft
from services.jobs.pipeline.kinds import KINDS
from services.jobs.pipeline.services import Service
from services.jobs.pipeline.shape import Limit
from services.jobs.pipeline.values import FormField
from services.jobs.pipeline.work import Place, Work, paths_of
from services.language import placeholders, scope
from services.language.paths import Path

Calling = Mapping[str, Mapping[str, Work]]
"""Of each step, the call of each hook that makes one, by the hook's pointer."""


def paths_read(drafts: Iterable[Draft], calling: Calling, limits: Iterable[Limit]) -> frozenset[Path]:
    """Every path that anything in the pipeline reads."""
    found: set[Path] = {path for limit in limits for path in placeholders.names(limit.key)}
    for draft in drafts:
        found |= draft.work.paths()
        found |= paths_of(hooks.condition_of(draft.fields, "fail_on"))
        for hook in draft.hooks:
            found |= paths_of(hook.when)
        for call in calling[draft.name].values():
            found |= call.paths()
    return frozenset(found)


def derived(read: Iterable[Path]) -> tuple[FormField, ...]:
    """The form of a pipeline that has none: every name it uses is a value that a request must give."""
    return tuple(FormField(name=name) for name in sorted(_value_names(read)))


def _value_names(read: Iterable[Path]) -> set[str]:
    names = {str(path[0]) for path in read if path[0] not in form.RESERVED}
    return names | {str(path[1]) for path in read if path[0] == "parameters" and len(path) > 1}


def _secrets(read: Iterable[Path]) -> frozenset[str]:
    return frozenset(str(path[1]) for path in read if path[0] == scope.SECRETS and len(path) > 1)


def unknown_in_steps(
    drafts: Sequence[Draft],
    calling: Calling,
    shape: Chain,
    values: frozenset[str],
) -> list[FieldError]:
    """Faults of everything that steps and their hooks read, each where it is written."""
    found: list[FieldError] = []
    for draft in drafts:
        earlier = shape.earlier.get(draft.name, frozenset())
        kind = KINDS[draft.kind]
        steps = frozenset[str]() if kind.plan else earlier
        found += draft.work.faults(_known(values, steps, draft.work.paths(), secrets=kind.secrets))
        after = values | {"result"}
        text = hooks.condition_of(draft.fields, "fail_on")
        if text is not None:
            known = _known(after, earlier | {draft.name}, ())
            found += scope.check_expression(text, known, draft.fields.pointer("fail_on"))
        for hook in draft.hooks:
            entering = hook.on == "enter"
            names, steps = (values, earlier) if entering else (after, earlier | {draft.name})
            if hook.when is not None:
                found += scope.check_expression(hook.when, _known(names, steps, ()), hook.when_at)
            if call := calling[draft.name].get(hook.at):
                found += call.faults(_known(names, steps, call.paths(), secrets=True))
    return found


def _known(
    values: frozenset[str], steps: frozenset[str], read: Iterable[Path], *, secrets: bool = False
) -> scope.Known:
    # Which secrets there are, only the request says: it must bring those that the definition names.
    return scope.Known(values, steps, _secrets(read) if secrets else frozenset())


def idle_actions(
    known: Mapping[str, Service],
    calling: Calling,
    drafts: Sequence[Draft],
    values: frozenset[str],
    *,
    given: bool,
) -> list[FieldError]:
    """Faults of actions that nothing calls: they are checked as if anything might."""
    used = {place.pointer for draft in drafts for place in draft.work.places}
    used |= {place.pointer for some in calling.values() for call in some.values() for place in call.places}
    steps = frozenset(draft.name for draft in drafts)
    found: list[FieldError] = []
    for service in known.values():
        for call in service.actions.values():
            if all(place.pointer in used for place in call.places):
                continue
            read = call.paths()
            names = (values if given else values | _value_names(read)) | {"result"}
            found += call.faults(_known(names, steps, read, secrets=True))
    return found


def limit_faults(limits: Sequence[Limit], values: frozenset[str]) -> list[FieldError]:
    known = scope.Known(values)
    return [
        fault
        for index, limit in enumerate(limits)
        for fault in Place("data", f"limits[{index}].key", limit.key).faults(known)
    ]

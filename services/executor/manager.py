"""The StepExecutionManager: folds requests, reports and outcomes into executions, and asks for steps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never

import msgspec

from services.contracts import envelope, ids, names, topics
from services.contracts.codec import Codec, Record
from services.contracts.commands import DefinitionState, JobRequested, StepOutcome, StepReport
from services.contracts.envelope import Outgoing
from services.contracts.errors import FieldError
from services.contracts.partition import partition_of
from services.executor import metrics
from services.executor.core import decide, request
from services.executor.core.execution import Execution
from services.executor.core.story import Story, request_for
from services.jobs.refused import Refused
from services.runtime.processor.handler import Handler
from services.runtime.processor.types import Change, Input, Poison, Routed

# Faults that lie in the work and not in the sender: a live execution ends by them. A forged record changes
# nothing.
_OURS = frozenset({"internal_error", "data_error", "too_large"})
DEFINITION_WAIT = timedelta(seconds=30)

INPUTS = ("job.requested", "execution.commands", "step.progressed", "step.completed", "definition.state")
OUTPUTS = ("step.requested", "step.requested.long", "step.control", "execution.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A request that came before the definition it names."""

    request: JobRequested
    until: datetime


State = Execution | Parked | DefinitionState
_KINDS: Mapping[bytes, type[State]] = {b"E": Execution, b"P": Parked, b"D": DefinitionState}
_TAGS = {kind: tag for tag, kind in _KINDS.items()}


class Manager(Handler[State]):
    """The loop's handler. Executions are keyed by their id, definitions by `<kind>/<tenant>/<id>`."""

    name: str = "executor"
    inputs: tuple[str, ...] = INPUTS

    def __init__(self, codec: Codec) -> None:
        """`codec` reads and writes the records."""
        self._codec = codec

    def route(self, record: Input) -> Routed | None:
        """Decode, and hold key and record against each other."""
        if record.topic == "definition.state" and record.value is None:
            return None  # compaction's tombstone: the deletion itself came as a revision
        try:
            return _routed(record, self._codec.decode(record.topic, record.value))
        except request.NameRefused as error:
            raise Poison("bad_name", str(error)) from error

    def apply(
        self,
        routed: Routed,
        state: State | None,
        lookups: Mapping[str, State | None],
        record: Input,
        now: datetime,
    ) -> Change[State]:
        """What one record leads to."""
        message: DefinitionState | JobRequested | StepReport | StepOutcome = routed.message
        match message:
            case DefinitionState():
                return _define(message, state)
            case JobRequested():
                return self._requested(message, state, lookups, len(record.value or b""), now)
            case StepReport() | StepOutcome():
                return self._said(message, state, now)
        assert_never(message)

    def lookups(self, key: str, state: State) -> tuple[str, ...]:
        """A parked request reads the definition it waits for."""
        named = request.named_definition(state.request) if isinstance(state, Parked) else None
        return (named,) if named else ()

    def due(
        self,
        key: str,
        state: State,
        lookups: Mapping[str, State | None],
        now: datetime,
        caught_up_at: datetime,
    ) -> Change[State]:
        """Leases, retries, and parked requests."""
        match state:
            case Execution():
                return self._told(decide.due(state, now, caught_up_at), state)
            case Parked():
                return self._resolve(state, lookups, now)
            case DefinitionState():
                return Change(state)
        assert_never(state)

    def poisoned(
        self, key: str, state: State | None, error: Poison, dead_letter: str, now: datetime
    ) -> Change[State] | None:
        """A live execution must not wait for what can never be processed."""
        matters = dead_letter.startswith(("job.requested/", "step.completed/", "timer/"))
        if not matters or not isinstance(state, Execution) or error.reason not in _OURS:
            return None
        story = decide.fail(state, error.reason, str(error)[:500], dead_letter, now)
        return self._told(story, state) if story else None

    def reconcile(self, state: State, lost: frozenset[str], now: datetime) -> Iterable[Outgoing]:
        """Steps that were asked for and neither claimed nor ended, when the log that asked is gone."""
        if not isinstance(state, Execution) or "step.requested" not in lost or state.status.terminal:
            return
        for index, step in enumerate(state.steps):
            if step.current and step.take_id is None:
                order = request_for(state, index, now)
                yield envelope.command(order, self._codec.encode(order))

    def encode(self, state: State) -> bytes:
        """One letter for the kind, then MessagePack."""
        return _TAGS[type(state)] + msgspec.msgpack.encode(state)

    def decode(self, key: str, body: bytes) -> State:
        """The reverse of encode."""
        kind: Any = _KINDS[body[:1]]
        state: State = msgspec.msgpack.decode(body[1:], type=kind)
        return state

    def _requested(
        self,
        wanted: JobRequested,
        state: State | None,
        lookups: Mapping[str, State | None],
        size: int,
        now: datetime,
    ) -> Change[State]:
        if isinstance(state, Execution | Parked):
            return _again(wanted, state)
        if fault := request.age_fault(wanted, now):
            raise Poison(*fault)
        if unsealed := request.unsealed_fields(wanted):
            raise Poison(
                "unsealed",
                f"{', '.join(unsealed)}: expected sealed values, found plain text; use the REST api",
                self._codec.encode(request.without_secrets(wanted)),
            )
        if size > names.REQUEST_BYTES_MAX:
            message = f"expected at most {names.REQUEST_BYTES_MAX} bytes, found {size}"
            return self._reject(wanted, (FieldError("", message),), now)
        if request.named_definition(wanted) is None:
            return self._accept(wanted, now)
        return self._resolve(Parked(request=wanted, until=now + DEFINITION_WAIT), lookups, now)

    def _resolve(self, parked: Parked, lookups: Mapping[str, State | None], now: datetime) -> Change[State]:
        named = request.named_definition(parked.request)
        found = lookups.get(named) if named else None
        if isinstance(found, DefinitionState) and not found.deleted:
            return self._accept(parked.request, now, found)
        if now >= parked.until:
            message = f'unknown dataset "{parked.request.definition_id}" in tenant {parked.request.tenant}'
            return self._reject(parked.request, (FieldError("definition_id", message),), now)
        return Change(parked, due_at=parked.until, waits_for=named)

    def _accept(
        self, wanted: JobRequested, now: datetime, definition: DefinitionState | None = None
    ) -> Change[State]:
        resolved = request.with_definition(wanted, definition) if definition else wanted
        try:
            steps = request.plan(resolved)
        except Refused as refused:
            return self._reject(wanted, refused.errors, now)
        except Exception as error:  # a fault of ours in a plan must not leave the request without an answer
            return self._reject(wanted, (FieldError("", f"internal_error: {type(error).__name__}"),), now)
        story = decide.accept(resolved, request.request_hash(wanted), steps, now)
        metrics.ACCEPTED.inc()
        return self._told(story, None)

    def _reject(self, wanted: JobRequested, errors: tuple[FieldError, ...], now: datetime) -> Change[State]:
        story = decide.reject(wanted, request.request_hash(wanted), errors, now)
        change = self._told(story, None)
        return replace(change, dead=Poison("rejected", "; ".join(map(str, errors))))

    def _said(self, said: StepReport | StepOutcome, state: State | None, now: datetime) -> Change[State]:
        if not isinstance(state, Execution):
            raise Poison("unknown_execution", f"no execution {said.execution_id}")
        if said.tenant != state.tenant:
            raise Poison("tenant_mismatch", f"execution {state.execution_id} belongs to another tenant")
        if state.step_of(said.attempt_id) is None:
            raise Poison("unknown_attempt", f"execution {state.execution_id} never asked for this attempt")
        if isinstance(said, StepReport):
            story = decide.report(state, said, now)
        else:
            story = decide.outcome(state, said, now)
        if story is None:
            metrics.STALE.labels(type(said).__name__).inc()
            return _kept(state)
        return self._told(story, state)

    def _told(self, story: Story, before: Execution | None) -> Change[State]:
        """Events chained and encoded, then the work they ask for."""
        chain = before.chain if before else b""
        out: list[Outgoing] = []
        for event in story.events:
            value = self._codec.encode(event)
            chain = ids.chain(chain, value)
            out.append(envelope.event(event, value, chain))
        out.extend(envelope.command(order, self._codec.encode(order)) for order in story.requests)
        state = story.chained(chain)
        return Change(state, due_at=decide.next_instant(state), out=tuple(out))


def _routed(record: Input, message: Record) -> Routed:
    """The states that a record is about, once key, place and names are as they must be."""
    match message:
        case DefinitionState():
            request.check_definition(message)
            _check_place(record, message.key)
            return Routed(message.key, message)
        case JobRequested():
            _check_execution(record, message.execution_id)
            request.check_names(message)
            named = request.named_definition(message)
            return Routed(message.execution_id, message, (named,) if named else ())
        case StepReport() | StepOutcome():
            _check_execution(record, message.execution_id)
            return Routed(message.execution_id, message)
        case _:
            raise Poison("unexpected_record", f"{type(message).__name__} is not for the manager")


def _define(definition: DefinitionState, state: State | None) -> Change[State]:
    if isinstance(state, DefinitionState) and state.revision >= definition.revision:
        return Change(state)
    return Change(definition, wakes=True)


def _again(wanted: JobRequested, state: Execution | Parked) -> Change[State]:
    known = state.request_hash if isinstance(state, Execution) else request.request_hash(state.request)
    if request.request_hash(wanted) == known:
        return _kept(state)
    id = wanted.execution_id
    raise Poison("id_conflict", f"execution {id} exists with another request; use a new id")


def _kept(state: Execution | Parked) -> Change[State]:
    if isinstance(state, Parked):
        return Change(state, due_at=state.until, waits_for=request.named_definition(state.request))
    return Change(state, due_at=decide.next_instant(state))


def _check_execution(record: Input, execution_id: str) -> None:
    if not ids.EXECUTION_ID.fullmatch(execution_id):
        raise Poison("bad_id", "execution_id: expected 40 hex digits")
    _check_place(record, execution_id)


def _check_place(record: Input, key: str) -> None:
    """A state has one home. A record elsewhere would have two owners fold it, each on its own."""
    if record.key != key.encode():
        raise Poison("key_mismatch", f"the record's key is not {key}; use it as the key")
    home = partition_of(key.encode(), topics.LOOP_PARTITIONS)
    if record.partition != home:
        raise Poison(
            "wrong_partition",
            f"key {key} belongs on partition {home}, found on {record.partition};"
            " set partitioner=murmur2_random in the producer",
        )

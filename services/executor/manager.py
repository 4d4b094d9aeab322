"""The StepExecutionManager: folds requests, reports and outcomes into executions, and asks for steps."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, assert_never

import msgspec
from msgspec import Struct, structs

from services.contracts import envelope, ids, names
from services.contracts.codec import Codec, Record
from services.contracts.commands import (
    Command,
    DefinitionState,
    ExecutionCommand,
    JobRequested,
    StepOutcome,
    StepReport,
)
from services.contracts.envelope import Outgoing
from services.contracts.errors import FieldError
from services.executor import metrics, routing
from services.executor.core import admission, commands, decide, ending, loads, request
from services.executor.core.admission import DEFAULT, Admission, Windows
from services.executor.core.budget import Budget
from services.executor.core.execution import Execution
from services.executor.core.story import Story, request_for
from services.executor.permits import PermitsContended, permit_rows
from services.jobs.refused import Refused
from services.runtime.processor.batch import RECORD_BYTES_MAX, TIMER_AGAIN
from services.runtime.processor.handler import Handler
from services.runtime.processor.letters import dead_letter
from services.runtime.processor.types import Change, Contended, Input, Poison, Routed, Row

# Faults that lie in the work and not in the sender: a live execution ends by them. A forged record changes
# nothing.
_OURS = frozenset({"internal_error", "data_error", "too_large"})
DEFINITION_WAIT = timedelta(seconds=30)
COMMAND_WAIT = timedelta(seconds=60)
EARLY_COMMANDS_MAX = 100
EARLY_BYTES_MAX = 1 << 20
# An execution that waits for one of these waits for ever if it cannot be processed.
_AWAITED = frozenset({"job.requested", "step.completed"})
# Where a worker says that it has taken or ended a step.
_ANSWERS = ("step.progressed", "step.completed")

INPUTS = ("job.requested", "execution.commands", "step.progressed", "step.completed", "definition.state")
OUTPUTS = ("step.requested", "step.requested.long", "step.control", "execution.events")


class Parked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came too early: a request before the definition it names, commands before their request."""

    request: JobRequested | None
    until: datetime
    commands: tuple[Input, ...] = ()
    record: Input | None = None
    """What the request came as, for its dead letter; none if it was parked before this was kept."""


State = Execution | Parked | DefinitionState
_KINDS: Mapping[bytes, type[State]] = {b"E": Execution, b"P": Parked, b"D": DefinitionState}
_TAGS = {kind: tag for tag, kind in _KINDS.items()}


class Manager(Handler[State]):
    """The loop's handler. Executions are keyed by their id, definitions by `<kind>/<tenant>/<id>`."""

    name: str = "executor"
    inputs: tuple[str, ...] = INPUTS

    def __init__(self, codec: Codec, windows: Windows = DEFAULT, budget: Budget | None = None) -> None:
        """`codec` reads and writes the records; `windows` bound the steps out per index, `budget` what each
        execution leads to."""
        self._codec = codec
        self._budget = budget or Budget()
        self._admission = Admission(windows)

    def route(self, record: Input) -> Routed | None:
        """Decode, and hold key and record against each other."""
        if record.topic == "definition.state" and record.value is None:
            return None  # compaction's tombstone: the deletion itself came as a revision
        message = self._codec.decode(record.topic, record.value)
        try:
            return routing.routed(record, message)
        except Exception as error:
            raise self._cut(error, message) from None

    def apply(
        self,
        routed: Routed,
        state: State | None,
        lookups: Mapping[str, State | None],
        record: Input,
        now: datetime,
    ) -> Change[State]:
        """What one record leads to."""
        message: DefinitionState | JobRequested | ExecutionCommand | StepReport | StepOutcome = routed.message
        match message:
            case DefinitionState():
                return _define(message, state)
            case JobRequested():
                try:
                    return self._requested(message, state, lookups, record, now)
                except Exception as error:
                    raise self._cut(error, message) from None
            case ExecutionCommand():
                return self._commanded(message, state, record, now)
            case StepReport() | StepOutcome():
                return self._said(message, state, record, now)
        assert_never(message)

    def lookups(self, key: str, state: State) -> tuple[str, ...]:
        """A parked request reads the definition it waits for, and the execution whose results it takes."""
        if not isinstance(state, Parked) or state.request is None:
            return ()
        read = (request.named_definition(state.request), request.original(state.request))
        return tuple(key for key in read if key)

    def due(
        self,
        key: str,
        state: State,
        lookups: Mapping[str, State | None],
        now: datetime,
        caught_up_at: datetime,
    ) -> Change[State]:
        """Leases, retries, later runs, and what is parked."""
        match state:
            case Execution():
                return self._told(decide.due(state, now, caught_up_at, self._budget), state, eager=True)
            case Parked(request=None):
                return self._unknown(key, state, now)
            case Parked():
                return self._with_letter(self._resolve(state, lookups, now), state.record)
            case DefinitionState():
                return Change(state)
        assert_never(state)

    def retain(self, indexes: Collection[int]) -> None:
        """Forget the others."""
        self._admission.retain(indexes)

    def remember(self, index: int, key: str, memo: bytes | None) -> None:
        """Count what is out, and queue up who waits."""
        self._admission.remember(index, key, memo)

    def begin(self) -> None:
        """Forget what the last batch counted."""
        self._admission.begin()

    def committed(self) -> None:
        """What the batch heard is true."""
        self._admission.committed()

    def contended(self, contended: Contended) -> None:
        """Permits were not as they had been thought to be."""
        if isinstance(contended, PermitsContended):
            self._admission.contended(contended.refused, contended.opened)

    def wanted(self, now: datetime) -> Iterable[tuple[str, int]]:
        """Executions for whose steps there is room now."""
        return self._admission.wanted(now)

    def woken(self, key: str, state: State, now: datetime) -> Change[State]:
        """It is its turn: a step that was queued goes out."""
        if not isinstance(state, Execution):
            return Change(state)
        story = Story.on(state, f"turn-{key[:16]}-{state.sequence}", now)
        self._admission.serve(story)
        return self._written(story, state, ())

    def poisoned(
        self, key: str, state: State | None, error: Poison, record: Input | None, now: datetime
    ) -> Change[State] | None:
        """A live execution must not wait for what can never be processed, nor a request for its answer."""
        if error.reason not in _OURS or (record is not None and record.topic not in _AWAITED):
            return None
        address = f"timer/{key}" if record is None else record.address
        match state:
            case Execution():
                story = decide.fail(state, error.reason, str(error)[:500], address, now)
                if story:
                    return self._told(story, state)
                # Of one that has ended only actions are left, which are tried again.
                return replace(_change(state), due_at=now + TIMER_AGAIN) if record is None else None
            case Parked() if record is None:
                return self._give_up(state, error, now)
            case None if record is not None and record.topic == "job.requested":
                wanted = self._codec.decode(record.topic, record.value)
                assert isinstance(wanted, JobRequested), "its topic's records only"
                return self._give_up(Parked(request=wanted, until=now), error, now)
            case _:
                return None

    def reconcile(self, state: State, lost: frozenset[str], now: datetime) -> Iterable[Outgoing]:
        """What only a lost log knew of: steps that nobody has claimed or ended, and executions to begin.

        An outcome may have been lost with its log, so these steps are asked for again as well.
        """
        if not isinstance(state, Execution):
            return
        if "job.requested" in lost:
            for rerun in state.reruns:
                yield self._outgoing(commands.rerun_request(state, rerun))
        # Actions that nobody waits for outlive their execution; its steps do not.
        first = len(state.steps) if state.status.terminal else 0
        for index, step in enumerate((*state.steps[first:], *state.hooks), first):
            if step.current and step.take_id is None and step.queued_since is None:
                order = self._outgoing(request_for(state, index, now))
                if lost & {order.topic, *_ANSWERS}:
                    yield order

    def encode(self, state: State) -> bytes:
        """One letter for the kind, then MessagePack."""
        return _TAGS[type(state)] + msgspec.msgpack.encode(state)

    def decode(self, key: str, body: bytes) -> State:
        """The reverse of encode."""
        kind: Any = _KINDS[body[:1]]
        state: State = msgspec.msgpack.decode(body[1:], type=kind)
        return state

    def _cut(self, error: Exception, message: Record) -> Exception:
        """Whatever a request is refused for, its dead letter must not hold what should have been sealed."""
        if not isinstance(message, JobRequested) or not request.unsealed_fields(message):
            return error
        value = self._codec.encode(request.without_secrets(message))
        if isinstance(error, Poison):
            return Poison(error.reason, str(error), value)
        return Poison("internal_error", f"{type(error).__name__}: {error}", value)

    def _requested(
        self,
        wanted: JobRequested,
        state: State | None,
        lookups: Mapping[str, State | None],
        record: Input,
        now: datetime,
    ) -> Change[State]:
        if isinstance(state, Execution):
            _check_same(wanted, state.request_hash)
            return self._as_it_is(state, now)
        if isinstance(state, Parked) and state.request is not None:
            _check_same(wanted, request.request_hash(state.request))
            return _kept(state)
        if fault := request.age_fault(wanted, now):
            raise Poison(*fault)
        if unsealed := request.unsealed_fields(wanted):
            raise Poison(
                "unsealed",
                f"{', '.join(unsealed)}: expected sealed values, found plain text; use the REST api",
            )
        early = state.commands if isinstance(state, Parked) else ()
        parked = Parked(request=wanted, until=now + DEFINITION_WAIT, commands=early, record=record)
        if (size := len(record.value or b"")) > names.REQUEST_BYTES_MAX:
            message = f"expected at most {names.REQUEST_BYTES_MAX} bytes, found {size}"
            return self._reject(parked, wanted, (FieldError("", message),), now)
        return self._resolve(parked, lookups, now)

    def _resolve(self, parked: Parked, lookups: Mapping[str, State | None], now: datetime) -> Change[State]:
        """Accept or reject a request, unless it has to wait for its definition."""
        wanted = parked.request
        assert wanted is not None, "commands alone wait for no definition"
        named = request.named_definition(wanted)
        if named is None:
            return self._accept(parked, wanted, lookups, now)
        found = lookups.get(named)
        if isinstance(found, DefinitionState) and not found.deleted:
            return self._accept(parked, request.with_definition(wanted, found), lookups, now)
        if now >= parked.until:
            kind = request.definition_kind(wanted)
            message = f'unknown {kind} "{wanted.definition_id}" in tenant {wanted.tenant}'
            return self._reject(parked, wanted, (FieldError("definition_id", message),), now)
        return _kept(parked)

    def _give_up(self, parked: Parked, error: Poison, now: datetime) -> Change[State]:
        """What was parked can never go on: its request is answered, its records are dead letters."""
        records = parked.commands if parked.record is None else (*parked.commands, parked.record)
        letters = tuple(dead_letter(self.name, record, error) for record in records)
        wanted = parked.request
        if wanted is None:
            return Change(None, out=letters)
        fault = FieldError(
            "", f"{error.reason}: it could not be processed; the dead letters have the details"
        )
        story = decide.reject(wanted, request.request_hash(wanted), (fault,), now)
        return self._told(story, None, letters)

    def _with_letter(self, change: Change[State], record: Input | None) -> Change[State]:
        """A timer brings no record of which the loop could make the dead letter: the parked one it is."""
        if change.dead is None or record is None:
            return change
        return replace(change, dead=None, out=(*change.out, dead_letter(self.name, record, change.dead)))

    def _accept(
        self, parked: Parked, resolved: JobRequested, lookups: Mapping[str, State | None], now: datetime
    ) -> Change[State]:
        wanted = parked.request or resolved
        try:
            steps = request.plan(resolved)
        except Refused as refused:
            return self._reject(parked, wanted, refused.errors, now)
        except Exception as error:  # a fault of ours in a plan must not leave the request without an answer
            message = f"internal_error: {type(error).__name__}"
            return self._reject(parked, wanted, (FieldError("", message),), now)
        original = _original(lookups.get(request.original(resolved) or ""), resolved)
        if faults := request.reuse_faults(resolved, original.request if original else None):
            return self._reject(parked, wanted, faults, now)
        story = decide.accept(resolved, request.request_hash(wanted), steps, now, original, self._budget)
        change = self._answered(story, parked.commands)
        if (size := max(len(record.value or b"") for record in change.out)) > RECORD_BYTES_MAX:
            message = f"its plan takes {size} bytes: expected at most {RECORD_BYTES_MAX}"
            return self._reject(parked, wanted, (FieldError("", message),), now)
        metrics.ACCEPTED.inc()
        return change

    def _reject(
        self, parked: Parked, wanted: JobRequested, errors: tuple[FieldError, ...], now: datetime
    ) -> Change[State]:
        story = decide.reject(wanted, request.request_hash(wanted), errors, now)
        change = self._answered(story, parked.commands)
        return replace(change, dead=Poison("rejected", "; ".join(map(str, errors))))

    def _commanded(
        self, wanted: ExecutionCommand, state: State | None, record: Input, now: datetime
    ) -> Change[State]:
        if isinstance(state, Execution):
            _check_tenant(wanted, state.tenant)
            return self._told(
                self._decided(Story.on(state, wanted.command_id, now, self._budget), wanted), state
            )
        parked = state if isinstance(state, Parked) else Parked(request=None, until=now + COMMAND_WAIT)
        if parked.request is not None and wanted.kind == "cancel":
            _check_tenant(wanted, parked.request.tenant)
            # It has no plan yet and will need none.
            story = decide.accept(parked.request, request.request_hash(parked.request), (), now)
            return self._answered(story, (*parked.commands, record))
        held = sum(len(early.value or b"") for early in parked.commands)
        if len(parked.commands) >= EARLY_COMMANDS_MAX or held + len(record.value or b"") > EARLY_BYTES_MAX:
            wait = f"{len(parked.commands)} commands of {held} bytes wait for this execution already"
            message = f"{wait}; expected at most {EARLY_COMMANDS_MAX}, and {EARLY_BYTES_MAX} bytes in all"
            raise Poison("too_many_commands", message)
        return _kept(structs.replace(parked, commands=(*parked.commands, record)))

    def _answered(self, story: Story, early: Iterable[Input]) -> Change[State]:
        """Decide on commands that came before their execution; dead letters of those it is none of."""
        letters: list[Outgoing] = []
        for record in early:
            wanted = self._codec.decode(record.topic, record.value)
            assert isinstance(wanted, ExecutionCommand), "nothing else is parked"
            try:
                _check_tenant(wanted, story.tenant)
            except Poison as error:
                letters.append(dead_letter(self.name, record, error))
            else:
                story = self._decided(story, wanted)
        return self._told(story, None, letters)

    def _decided(self, story: Story, wanted: ExecutionCommand) -> Story:
        """The story with the command's answer. One that no record can hold is a refusal: somebody waits."""
        decided = story.draft()
        commands.decide(decided, wanted)
        told = (*decided.events[len(story.events) :], *decided.reruns[len(story.reruns) :])
        sizes = ((len(self._codec.encode(record)), type(record).__name__) for record in told)
        size, name = max(sizes, default=(0, ""))
        if size <= RECORD_BYTES_MAX:
            return decided
        message = f"it leads to {name} of {size} bytes; a record takes {RECORD_BYTES_MAX}"
        commands.refuse(story, wanted, "too_large", message)
        return story

    def _unknown(self, key: str, parked: Parked, now: datetime) -> Change[State]:
        if now < parked.until:
            return _kept(parked)
        error = Poison("unknown_execution", f"no execution {key} within {COMMAND_WAIT.seconds} s")
        return Change(None, out=tuple(dead_letter(self.name, record, error) for record in parked.commands))

    def _said(
        self, said: StepReport | StepOutcome, state: State | None, record: Input, now: datetime
    ) -> Change[State]:
        if not isinstance(state, Execution):
            raise Poison("unknown_execution", f"no execution {said.execution_id}")
        _check_tenant(said, state.tenant)
        self._note_wait(said.attempt_id, state, record)
        if isinstance(said, StepReport):
            story = decide.report(state, said, now)
        else:
            story = decide.outcome(state, said, now, self._budget)
        return self._told(story, state) if story else self._stale(said, state, now)

    def _note_wait(self, attempt_id: str, state: Execution, record: Input) -> None:
        waited_s, index = envelope.waited_s(record.headers), state.current_step(attempt_id)
        if waited_s is not None and index is not None:
            self._admission.heard(state.execution_id, state.unit(index).plan.kind, waited_s)

    def _stale(self, said: StepReport | StepOutcome, state: Execution, now: datetime) -> Change[State]:
        """A word that changes nothing. Whoever still runs the step is told to stop."""
        index = state.step_of(said.attempt_id)
        if index is None:
            raise Poison("unknown_attempt", f"execution {state.execution_id} never asked for this attempt")
        metrics.STALE.labels(type(said).__name__).inc()
        if isinstance(said, StepReport):
            return self._told(decide.disown(state, index, said, now), state)
        return self._as_it_is(state, now)

    def _told(
        self,
        story: Story,
        before: Execution | None,
        letters: Iterable[Outgoing] = (),
        *,
        eager: bool = False,
    ) -> Change[State]:
        """The decision, once what may not go out yet is queued; see Admission.admit for `eager`."""
        story.budget = self._budget
        ending.keep_within_budget(story)
        wants = self._admission.admit(story, before, eager=eager)
        return self._written(story, before, permit_rows(wants), letters)

    def _written(
        self,
        story: Story,
        before: Execution | None,
        rows: tuple[Row, ...],
        letters: Iterable[Outgoing] = (),
    ) -> Change[State]:
        """Events chained and encoded, then what they ask of others."""
        chain, size = before.chain if before else b"", 0
        out: list[Outgoing] = []
        for event in story.events:
            value = self._codec.encode(event)
            chain, size = ids.chain(chain, value), size + len(value)
            out.append(envelope.event(event, value, chain))
        for order in story.requests:
            out.append(self._outgoing(order))
        rare: tuple[Command, ...] = (*story.controls, *story.reruns)
        for more in rare:
            out.append(self._outgoing(more))
        out.extend(letters)
        return _change(story.chained(chain, size), tuple(out), rows)

    def _as_it_is(self, state: Execution, now: datetime) -> Change[State]:
        """Nothing happened to it; what it waits for is looked at again, as the row is written anew."""
        return self._told(Story.on(state, "", now), state)

    def _outgoing(self, record: Command) -> Outgoing:
        return envelope.command(record, self._codec.encode(record))


def _original(state: State | None, wanted: JobRequested) -> Execution | None:
    """What the request repeats, if it is its tenant's and was a request that passed."""
    if isinstance(state, Execution) and state.tenant == wanted.tenant and state.request is not None:
        return state
    return None


def _define(definition: DefinitionState, state: State | None) -> Change[State]:
    if isinstance(state, DefinitionState) and state.revision >= definition.revision:
        return Change(state)
    return Change(definition, wakes=True)


def _check_same(wanted: JobRequested, known: str) -> None:
    if request.request_hash(wanted) != known:
        id = wanted.execution_id
        raise Poison("id_conflict", f"execution {id} exists with another request; use a new id")


def _kept(parked: Parked) -> Change[State]:
    named = request.named_definition(parked.request) if parked.request else None
    return Change(parked, due_at=parked.until, waits_for=named)


def _change(state: Execution, out: tuple[Outgoing, ...] = (), rows: tuple[Row, ...] = ()) -> Change[State]:
    due_at = decide.next_instant(state)
    waits_for, memo = admission.waits_for(state), loads.memo(state)
    return Change(state, due_at=due_at, waits_for=waits_for, memo=memo, out=out, rows=rows)


def _check_tenant(said: ExecutionCommand | StepReport | StepOutcome, tenant: str) -> None:
    if said.tenant != tenant:
        raise Poison("tenant_mismatch", f"execution {said.execution_id} belongs to another tenant")

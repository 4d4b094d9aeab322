"""Appends events to a state, numbering them; what a decision returns."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from services.contracts import ids
from services.contracts.commands import JobRequested, StepControl, StepRequested
from services.contracts.events import Event
from services.executor.core.budget import USUAL, Budget
from services.executor.core.execution import Execution, Rerun, evolve
from services.executor.core.filling import filled
from services.executor.core.visit import Visit


@dataclass(slots=True)
class Story:
    """One decision in the making: the state so far, the events it led to, what it asks of others.

    `cause` is the id of what is being decided on; `now` the instant of every event. `requests` are steps to
    run, `controls` work to stop, `reruns` executions to begin; `budget` bounds all that it leads to.
    """

    execution_id: str
    tenant: str
    cause: str
    now: datetime
    state: Execution | None = None
    budget: Budget = USUAL
    events: list[Event] = field(default_factory=list)
    requests: list[StepRequested] = field(default_factory=list)
    controls: list[StepControl] = field(default_factory=list)
    reruns: list[JobRequested] = field(default_factory=list)
    _measured: tuple[int, int] = field(default=(0, 0), init=False)
    """So many of the events, and their bytes."""

    @classmethod
    def on(cls, state: Execution, cause: str, now: datetime, budget: Budget = USUAL) -> "Story":
        """The story of a decision on an existing execution."""
        return cls(state.execution_id, state.tenant, cause, now, state, budget)

    def draft(self) -> "Story":
        """The same so far; what is told or asked there is not told here."""
        lists = (self.events, self.requests, self.controls, self.reruns)
        given = (self.execution_id, self.tenant, self.cause, self.now, self.state, self.budget)
        return Story(*given, *([*kept] for kept in lists))

    def size(self) -> int:
        """About how large the events of this decision are; each is measured once."""
        count, size = self._measured
        size += sum(len(msgspec.json.encode(event)) for event in self.events[count:])
        self._measured = len(self.events), size
        return size

    @property
    def execution(self) -> Execution:
        """The state, once there is one."""
        assert self.state is not None
        return self.state

    def tell(self, kind: type[Any], **fields: Any) -> None:
        """Append one event of this kind with the next sequence."""
        sequence = self.state.sequence + 1 if self.state else 1
        event: Event = kind(
            event_id=ids.event_id(self.execution_id, sequence),
            execution_id=self.execution_id,
            tenant=self.tenant,
            sequence=sequence,
            occurred_at=self.now,
            causation_id=self.cause,
            correlation_id=self.execution_id,
            **fields,
        )
        self.state = evolve(self.state, event)
        self.events.append(event)

    def ask(self, index: int) -> None:
        """Ask for the next attempt of a unit. Raises Unaskable."""
        step = self.execution.unit(index)
        asked = replace(
            step,
            asked=step.asked + 1,
            asked_since=step.asked_since or self.now,
            asked_at=self.now,
            retry_at=None,
            take_id=None,
            queued_since=None,
            ordered_at=None,
        )
        self.state = self.execution.with_step(index, asked)
        self.requests.append(request_for(self.state, index, self.now))

    def order_again(self, index: int) -> None:
        """The order of the current attempt once more, for it may be gone from its topic."""
        self.change(index, ordered_at=self.now)
        self.requests.append(request_for(self.execution, index, self.now))

    def lease(self, index: int, until: datetime) -> None:
        """Give the current take of a step its time; no event, the history does not care."""
        self.change(index, lease_until=until)

    def change(self, index: int, **fields: Any) -> None:
        """Change what belongs to the work on a unit and not to the history."""
        self.state = self.execution.with_step(index, replace(self.execution.unit(index), **fields))

    def visit(self, index: int, **fields: Any) -> None:
        """Change how far the execution has come with a step."""
        visit = self.execution.steps[index].visit
        assert visit is not None, "a flow leads the step"
        self.change(index, visit=replace(visit, **fields))

    def revoke(self, reason: str, attempt_id: str | None = None, take_id: str | None = None) -> None:
        """Tell every worker to stop the take, without one the attempt, without either the execution."""
        self.controls.append(
            StepControl(
                execution_id=self.execution_id,
                tenant=self.tenant,
                kind="revoke",
                reason=reason,
                issued_at=self.now,
                attempt_id=attempt_id,
                take_id=take_id,
            )
        )

    def begin_again(self, rerun: Rerun, request: JobRequested) -> None:
        """Ask for the execution that repeats this one, and remember that we did."""
        self.state = replace(self.execution, reruns=(*self.execution.reruns, rerun))
        self.reruns.append(request)

    def chained(self, chain: bytes, size: int) -> Execution:
        """The state with the hash chain after the new events, which take `size` bytes."""
        return replace(self.execution, chain=chain, event_bytes=self.execution.event_bytes + size)


def request_for(state: Execution, index: int, now: datetime) -> StepRequested:
    """The work order for the current attempt of a step; the same one however often it is made."""
    step = state.unit(index)
    led = step.hook or step.visit
    return StepRequested(
        attempt_id=state.attempt_id(index),
        execution_id=state.execution_id,
        tenant=state.tenant,
        step=step.plan.name,
        kind=step.plan.kind,
        attempt=step.asked,
        parameters=step.plan.parameters if step.plan.flow is None else filled(state, index),
        timeout_s=step.plan.timeout_s,
        requested_at=now,
        visit=led.number if isinstance(led, Visit) else led.visit if led else 1,
    )

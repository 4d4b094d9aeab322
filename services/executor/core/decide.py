"""Every rule about executions: what a request, a report, an outcome or a timer leads to."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from services.contracts import events
from services.contracts.commands import ORDER_EXPIRED, File, JobRequested, Json, StepOutcome, StepReport
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.contracts.flow import QUEUE_TIMEOUT_S, Retry, flow_of
from services.contracts.status import Status, StepStatus
from services.executor.core import approvals, ending, flow, form, hooks
from services.executor.core import budget as budgets
from services.executor.core.budget import Budget
from services.executor.core.execution import Execution, Step
from services.executor.core.retry import LONGEST_UNCOUNTED_S, UNCOUNTED, again, next_at, retry_at
from services.executor.core.story import Story
from services.executor.core.visit import Held

LEASE = timedelta(seconds=20)
WORKER_FIRST = timedelta(seconds=30)
WORKER_LOST = "worker_lost"
ORDERS_KEPT = timedelta(days=6)
"""A day less than the topics keep them (schemas/topics.yaml)."""
USUAL = Retry()

# A slot's execution has no pending phase: when it fires, it runs (S0 0.5).
_NO_PENDING_PHASE = frozenset({"scheduled", "backfill"})


def accept(
    request: JobRequested,
    request_hash: str,
    plan: tuple[PlannedStep, ...],
    now: datetime,
    original: Execution | None = None,
    budget: Budget = budgets.USUAL,
) -> Story:
    """A request that passed its checks: accepted, and its first step asked for, now or at `run_at`.

    Whoever had a hand in the values of `original` has one in these. If its results are reused, they stand for
    steps that are planned alike. No plan: it is cancelled before it has one.
    """
    story = Story(request.execution_id, request.tenant, request.execution_id, now, budget=budget)
    if plan and plan[0].flow is not None:
        request = form.completed(request)
    story.tell(events.ExecutionAccepted, request=request, request_hash=request_hash, plan=plan)
    if original is not None:
        story.state = replace(story.execution, authors=approvals.authors(original))
    if plan and not request.hold and story.execution.steps[0].retry_at is None:
        begin(story, original if request.reuse_results else None)
    return story


def begin(story: Story, original: Execution | None = None) -> None:
    """The first step, or the first one for which the original has no result."""
    if story.execution.agenda:
        _no_longer_pending(story)
        flow.take_over(story, original)
        if not story.execution.agenda:
            ending.completed(story)
        flow.go_on(story)
    else:
        _proceed(story, _taken_over(story, original))


def reject(request: JobRequested, request_hash: str, errors: tuple[FieldError, ...], now: datetime) -> Story:
    """A request that cannot run: one terminal event with every error."""
    story = Story(request.execution_id, request.tenant, request.execution_id, now)
    story.tell(events.ExecutionRejected, request_hash=request_hash, errors=errors)
    return story


def report(state: Execution, said: StepReport, now: datetime) -> Story | None:
    """A claim, heartbeat or part. None: it comes from a take that does not own a current attempt.

    The first word of any take makes it the owner: a claim may have been lost with its log.
    """
    index = state.current_step(said.attempt_id)
    if index is None:
        return None
    story = Story.on(state, said.take_id, now)
    if state.unit(index).take_id is None:
        _own(story, index, said.take_id, said.worker)
    if story.execution.unit(index).take_id != said.take_id:
        return None
    story.lease(index, now + timedelta(seconds=min(said.lease_s, LEASE.total_seconds())))
    step = story.execution.unit(index)
    if said.kind == "part" and step.hook is None and (said.files, said.rows) > step.progress:
        story.tell(
            events.StepProgressed,
            step=step.plan.name,
            attempt=step.asked,
            files=said.files,
            rows=said.rows,
            bytes=said.bytes,
            detail=said.detail,
        )
    return story


def outcome(
    state: Execution, said: StepOutcome, now: datetime, budget: Budget = budgets.USUAL
) -> Story | None:
    """How a take ended. None: the attempt is not current, or another take owns it."""
    index = state.current_step(said.attempt_id)
    if index is None or state.unit(index).take_id not in (None, said.take_id):
        return None
    story = Story.on(state, said.take_id, now, budget)
    if state.unit(index).take_id is None:
        _own(story, index, said.take_id, said.worker)
    if said.outcome == "done":
        _complete(story, index, said.output, said.files)
    else:
        reason, message = said.reason or said.outcome, said.message or "the worker gave no message"
        _ended_badly(story, index, said.outcome == "retry", reason, message, said.output)
    return story


def disown(state: Execution, index: int, said: StepReport, now: datetime) -> Story:
    """The answer to a word of a take that does not own a current attempt of this step: stop.

    Whoever ended the step itself has stopped; what it said before only comes late.
    """
    story, step = Story.on(state, said.take_id, now), state.unit(index)
    if step.take_id == said.take_id and step.status is not StepStatus.CANCELLED:
        return story
    current = state.current_step(said.attempt_id) is not None
    reason = "cancelled" if state.status is Status.CANCELLED else "not_owner" if current else "ended"
    story.revoke(reason, said.attempt_id, said.take_id)
    return story


def due(state: Execution, now: datetime, caught_up_at: datetime, budget: Budget = budgets.USUAL) -> Story:
    """The execution's timer: leases that ran out, retries whose time has come.

    A lease gets a full term from `caught_up_at` on: silence that we slept through is no silence. Of an
    execution that has ended only actions are left, which are tried no more.
    """
    story = Story.on(state, f"timer-{state.execution_id[:16]}-{state.sequence}", now, budget)
    ended = state.status.terminal
    if state.ends_at is not None and state.ends_at <= now and not ended:
        ending.time_out(story)
        return story
    units = state.hooks if ended else (*state.steps, *state.hooks) if state.hooks else state.steps
    for index, step in enumerate(units, len(state.steps) if ended else 0):
        if (total_at := _total_at(step)) is not None and total_at <= now:
            _time_out_in_all(story, index)
            break
        if step.retry_at is not None and step.retry_at <= now and not state.paused:
            _begin(story, index)
            break
        if (timeout_at := _timeout_at(step, paused=state.paused)) is not None and timeout_at <= now:
            _time_out(story, index)
            break
        if (order_at := _order_at(step, paused=state.paused)) is not None and order_at <= now:
            story.order_again(index)
        if step.lease_until is not None and step.lease_until <= now:
            if caught_up_at + LEASE > now:
                story.lease(index, caught_up_at + LEASE)
            else:
                _lost(story, index)
                break
        if (until := _visit_until(step, paused=state.paused)) is not None and until <= now:
            flow.due(story)
            break
    return story


def fail(state: Execution, reason: str, message: str, dead_letter: str, now: datetime) -> Story | None:
    """An input that can never be processed ends what waits for it. None: it had ended already."""
    if state.status.terminal:
        return None
    story = Story.on(state, dead_letter, now)
    ending.poisoned(story, reason, message, dead_letter)
    return story


def next_instant(state: Execution) -> datetime | None:
    """When the execution's timer is due."""
    ended = state.status.terminal
    if ended and not state.hooks:
        return None
    # Of a pipeline only the step that is led has instants, and there may be a hundred others.
    steps = (state.steps[state.index_of(state.agenda[0])],) if state.agenda else state.steps
    units = state.hooks if ended else (*steps, *state.hooks) if state.hooks else steps
    instants = [at for step in units for at in _instants(step, paused=state.paused) if at is not None]
    if state.ends_at is not None and not ended:
        instants.append(state.ends_at)
    return min(instants, default=None)


def _instants(step: Step, *, paused: bool) -> tuple[datetime | None, ...]:
    """While the execution is paused nothing begins, so these instants are looked at again when it goes on."""
    asked = None if paused else step.retry_at
    until = _visit_until(step, paused=paused)
    timeout_at, order_at = _timeout_at(step, paused=paused), _order_at(step, paused=paused)
    return asked, step.lease_until, _total_at(step), timeout_at, order_at, until


def _total_at(step: Step) -> datetime | None:
    """When the work of this visit ends whatever becomes of its attempts; pauses count, as they do for the
    timeout of the execution.
    """
    led = flow_of(step.plan.flow)
    if led is None or led.total_timeout_s is None or step.asked_since is None:
        return None
    if step.visit is None or step.visit.phase != "work":
        return None
    return step.asked_since + timedelta(seconds=led.total_timeout_s)


def _order_at(step: Step, *, paused: bool) -> datetime | None:
    """When an order that no worker took is published again: steps may wait longer than topics keep it."""
    if paused or not step.current or step.take_id is not None or step.queued_since is not None:
        return None
    ordered_at = step.ordered_at or step.asked_at
    return ordered_at + ORDERS_KEPT if ordered_at is not None else None


def _visit_until(step: Step, *, paused: bool) -> datetime | None:
    """An approval expires in a pause too."""
    visit = step.visit
    return None if visit is None or (paused and visit.phase != "approval") else visit.until


def _timeout_at(step: Step, *, paused: bool) -> datetime | None:
    """Nothing waits for ever: neither for a worker, nor for a worker that only says it is alive.

    But what a pause keeps back waits for the pause.
    """
    if not step.current or (paused and step.queued_since is not None):
        return None
    if step.running_since is not None:
        # The worker, which stops the work, has the first word.
        return step.running_since + timedelta(seconds=step.plan.timeout_s) + WORKER_FIRST
    return step.asked_at + timedelta(seconds=_queue_timeout_s(step)) if step.asked_at is not None else None


def _queue_timeout_s(step: Step) -> int:
    led = flow_of(step.plan.flow)
    return led.queue_timeout_s if led else QUEUE_TIMEOUT_S


def _time_out(story: Story, index: int) -> None:
    step = story.execution.unit(index)
    story.revoke("timeout", story.execution.attempt_id(index))
    if step.running_since is not None:
        message = f"the step ran longer than its timeout of {step.plan.timeout_s} s"
        _ended_badly(story, index, False, "timeout", message)
    else:
        wait_s = _queue_timeout_s(step)
        limit = f"{wait_s / 3600:.0f} h" if step.plan.flow is None else f"its queue timeout of {wait_s} s"
        _fail(story, index, "queue_timeout", f"no worker took the step within {limit}")


def _time_out_in_all(story: Story, index: int) -> None:
    step = story.execution.unit(index)
    led = flow_of(step.plan.flow)
    assert led is not None, "what has a total timeout is led"
    if step.current:
        story.revoke("timeout", story.execution.attempt_id(index))
    attempts = step.asked - (step.visit.first - 1 if step.visit else 0)
    message = (
        f"the step took longer than its total timeout (total_timeout_s) of {led.total_timeout_s} s; "
        f"attempts begun: {attempts}"
    )
    _fail(story, index, "total_timeout", message)


def _own(story: Story, index: int, take_id: str, worker: str) -> None:
    step = story.execution.unit(index)
    if step.hook is not None:
        hooks.own(story, index, take_id, worker)
        return
    if story.execution.status is Status.PENDING:
        story.tell(events.ExecutionStarted)
    story.tell(events.StepRunning, step=step.plan.name, attempt=step.asked, take_id=take_id, worker=worker)


def _complete(story: Story, index: int, output: Json, files: tuple[File, ...]) -> None:
    step = story.execution.unit(index)
    if step.hook is not None:
        flow.hook_completed(story, index, output)
    elif step.visit is not None:
        if fault := flow.fault_of(story, index, output, files):
            _ended_badly(story, index, False, *fault)
        else:
            flow.worked(story, index, Held(done=True, output=output, files=files))
    else:
        _result(story, step.plan.name, step.asked, output, files)
        _proceed(story, index + 1)


def _proceed(story: Story, index: int) -> None:
    """The next step, or the end."""
    if index < len(story.execution.steps):
        if not story.execution.paused:
            _begin(story, index)
        return
    ending.completed(story)


def _result(story: Story, step: str, attempt: int, output: Json, files: tuple[File, ...]) -> None:
    story.tell(events.StepCompleted, step=step, attempt=attempt, output=output)
    for file in files:
        story.tell(events.FilePublished, step=step, file=file)


def _begin(story: Story, index: int) -> None:
    """Ask for the unit, again or for the first time; a pipeline's first step is led there."""
    _no_longer_pending(story)
    step = story.execution.unit(index)
    if step.plan.flow is not None and step.visit is None:
        story.change(index, retry_at=None)
        flow.go_on(story)
    else:
        story.ask(index)


def _no_longer_pending(story: Story) -> None:
    request = story.execution.request
    if story.execution.status is Status.PENDING and request and request.origin in _NO_PENDING_PHASE:
        story.tell(events.ExecutionStarted)


def go_on(story: Story) -> None:
    """After a pause: the step that was not begun. Retries and waits whose instant has passed are due."""
    for index, step in enumerate((*story.execution.steps, *story.execution.hooks)):
        if step.current and step.queued_since is not None:
            story.change(index, asked_at=story.now)  # its queue timeout runs from now
    state = story.execution
    if state.agenda:
        head = state.steps[state.index_of(state.agenda[0])]
        if head.visit is not None or head.retry_at is None:  # else its run is still to come
            flow.go_on(story)
        return
    for index, step in enumerate(state.steps):
        if not step.ended:
            if not step.current and step.retry_at is None:
                _begin(story, index)
            return


def _taken_over(story: Story, original: Execution | None) -> int:
    """Results of the original, in order, up to the first step that has none; how many there are."""
    taken = 0
    for step, former in zip(story.execution.steps, original.steps if original else (), strict=False):
        if former.status is not StepStatus.COMPLETED or former.plan != step.plan:
            break
        if story.execution.status is Status.PENDING:
            story.tell(events.ExecutionStarted)
        _result(story, step.plan.name, 0, former.output, former.files)
        taken += 1
    return taken


def _ended_badly(
    story: Story, index: int, proposed: bool, reason: str, message: str, output: Json = None
) -> None:
    """Once more, if the step's policy lets it, or the end; `proposed`: its worker would try again."""
    step = story.execution.unit(index)
    led = flow_of(step.plan.flow)
    policy = led.retry if led else USUAL
    if not again(policy, reason, proposed=proposed) or story.execution.status.terminal:
        _fail(story, index, reason, message)
    elif reason == ORDER_EXPIRED and proposed:
        _order_anew(story, index, message)
    elif reason in UNCOUNTED and proposed:
        _wait_for_what_is_away(story, index, reason, message)
    elif step.counted + 1 < step.plan.max_attempts:
        attempt_id = story.execution.attempt_id(index)
        at = next_at(policy, attempt_id, step.counted + 1, story.now, output)
        _again_in_time(story, index, reason, message, at)
    else:
        _fail(story, index, reason, message)


def _again_in_time(story: Story, index: int, reason: str, message: str, at: datetime) -> None:
    """The next attempt, unless it would only begin when the step's time is over: then the end, now."""
    total_at = _total_at(story.execution.unit(index))
    if total_at is not None and total_at <= at:
        _fail(
            story, index, reason, f"{message}; the next attempt would begin after the step's total_timeout_s"
        )
        return
    _schedule_retry(story, index, reason, message, at)


def _schedule_retry(story: Story, index: int, reason: str, message: str, at: datetime) -> None:
    step = story.execution.unit(index)
    if step.hook is not None:
        hooks.again(story, index, reason, message, at)
        return
    story.tell(
        events.StepRetryScheduled,
        step=step.plan.name,
        attempt=step.asked,
        reason=reason,
        message=message,
        retry_at=at,
    )


def _order_anew(story: Story, index: int, message: str) -> None:
    """A worker found the order so old that it asks: still wanted, so it goes out again at once."""
    _schedule_retry(story, index, ORDER_EXPIRED, message, story.now)
    if not story.execution.paused:
        story.ask(index)


def _wait_for_what_is_away(story: Story, index: int, reason: str, message: str) -> None:
    """No attempt is counted, but the step's time is: its total timeout, else that of one attempt."""
    step = story.execution.unit(index)
    assert step.asked_since is not None, "an attempt that ends was asked for"
    if _total_at(step) is None and story.now - step.asked_since >= timedelta(seconds=step.plan.timeout_s):
        given_up = f"{message}; given up after the step's timeout of {step.plan.timeout_s} s"
        _fail(story, index, reason, given_up)
        return
    attempt_id = story.execution.attempt_id(index)
    before = step.visit.first - 1 if step.visit else 0
    at = retry_at(attempt_id, step.asked - before - step.counted, LONGEST_UNCOUNTED_S, story.now)
    _again_in_time(story, index, reason, message, at)


def _fail(story: Story, index: int, reason: str, message: str) -> None:
    step = story.execution.unit(index)
    if step.hook is not None:
        flow.hook_failed(story, index, reason, message)
    elif step.visit is not None:
        flow.worked(story, index, Held(done=False, reason=reason, message=message))
    else:
        story.tell(events.StepFailed, step=step.plan.name, attempt=step.asked, reason=reason, message=message)
        ending.failed(story, step.plan.name, reason, message)


def _lost(story: Story, index: int) -> None:
    """The worker fell silent: a counted attempt, tried again at once."""
    step = story.execution.unit(index)
    story.revoke("lease_lost", story.execution.attempt_id(index))
    message = f"worker {step.worker} sent no heartbeat for {LEASE.total_seconds():.0f} s"
    led = flow_of(step.plan.flow)
    repeated = again(led.retry if led else USUAL, WORKER_LOST, proposed=True)
    last = step.counted + 1 >= step.plan.max_attempts or story.execution.status.terminal
    if not repeated or last:
        _fail(story, index, WORKER_LOST, message)
        return
    _schedule_retry(story, index, WORKER_LOST, message, story.now)
    if not story.execution.paused:
        story.ask(index)

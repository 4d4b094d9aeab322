"""What leading a step needs at every turn: its flow, its visit, the outcome that is kept."""

from services.contracts import events
from services.contracts.flow import Flow, flow_of
from services.contracts.status import Status
from services.executor.core.execution import Step
from services.executor.core.story import Story
from services.executor.core.visit import Held, Phase, Visit


def begun(story: Story) -> None:
    """Something of it happens: it is pending no more."""
    if story.execution.status is Status.PENDING:
        story.tell(events.ExecutionStarted)


def led(step: Step) -> Flow:
    """The flow of a step that has one."""
    found = flow_of(step.plan.flow)
    assert found is not None, "a flow leads the step"
    return found


def visit_of(story: Story, index: int) -> Visit:
    """How far the execution has come with a step that a flow leads."""
    visit = story.execution.steps[index].visit
    assert visit is not None, "a flow leads the step"
    return visit


def places(story: Story, index: int, on: str) -> tuple[int, ...]:
    """The places, in the flow, of the actions for an occasion."""
    found = led(story.execution.steps[index]).actions
    return tuple(place for place, action in enumerate(found) if action.on == on)


def hold(story: Story, index: int, held: Held) -> None:
    """Keep the outcome until the exit actions have ended."""
    phase: Phase = "exit" if led(story.execution.steps[index]).actions else "result"
    actions = places(story, index, "exit")
    story.visit(index, phase=phase, held=held, until=None, actions=actions, awaited=None, then=())

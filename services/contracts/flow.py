"""How a step of a pipeline is led: what precedes and follows its work. It travels as JSON in the plan.

A step passes its phases in this order: pause and wait before, `enter` actions, the work, `exit` actions and
then those for its success or error, wait after. Then come the steps that a goto named, else those in `next`.
"""

from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct

from services.contracts.commands import Json

On = Literal["enter", "exit", "success", "error"]
Kind = Literal["call", "goto", "noop"]

HOOK_TIMEOUT_S = 30
HOOK_ATTEMPTS = 3
QUEUE_TIMEOUT_S = 24 * 3600


class Action(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One action beside a step (S2 2.7-2.13): a call of a service, `std:goto(step)` or `std:no-op`.

    `written` is how the definition names it. `parameters` are those of a call, not filled yet. `when` is a
    condition. An awaited action (`wait`) ends before the step goes on and its error fails the step; any other
    is cast and forgotten (S2 2.19).
    """

    written: str
    kind: Kind
    on: On
    step: str | None = None
    parameters: Json = None
    when: str | None = None
    wait: bool = False
    timeout_s: int = HOOK_TIMEOUT_S
    max_attempts: int = HOOK_ATTEMPTS


class Retry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When an attempt that ended badly is tried again; how often is the plan's `max_attempts`.

    The pause doubles from `backoff_s` up to `backoff_max_s`, each `jitter` (a share) longer or shorter. With
    `only_on` only these reasons are tried again; those in `stop_on` never are.
    """

    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    jitter: float = 0.2
    only_on: tuple[str, ...] = ()
    stop_on: tuple[str, ...] = ()


class Flow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What leads one step. `next` are the steps after a success that no goto sent elsewhere.

    The plan's `timeout_s` bounds each attempt from when it runs. `total_timeout_s` bounds the work of one
    visit from when its first attempt is asked for: all attempts, the waits for a worker and those between.
    None: attempts are bounded by their number alone.

    `fail_on` is a condition over `$.result`: true makes a result a failure. `on_expiry` of an approval is
    fail, cancel or skip. `max_step_runs` bounds how many steps the execution may run in all; it is the same
    in each step of a plan.
    """

    next: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    retry: Retry = Retry()
    queue_timeout_s: int = QUEUE_TIMEOUT_S
    total_timeout_s: int | None = None
    wait_before_s: float = 0.0
    wait_after_s: float = 0.0
    pause_before: bool = False
    fail_on: str | None = None
    max_step_runs: int = 1000


def packed(flow: Flow) -> Json:
    """The flow as a plan carries it, and as the log gives it back: with lists where the flow has tuples."""
    return msgspec.json.decode(msgspec.json.encode(flow))


def flow_of(packed: Json) -> Flow | None:
    """The flow that a plan carries; none for a step that has none. msgspec.ValidationError: it is no flow."""
    return None if packed is None else _parsed(msgspec.json.encode(packed))


@lru_cache(maxsize=4096)
def _parsed(text: bytes) -> Flow:
    # A step's flow is asked for at each of its events, and plans of one pipeline have the same flows.
    return msgspec.json.decode(text, type=Flow)


def actions(flow: Flow, *on: On) -> tuple[Action, ...]:
    """The actions for these occasions, in the order written."""
    return tuple(action for occasion in on for action in flow.actions if action.on == occasion)

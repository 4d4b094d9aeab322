"""How far an execution has come with a step that a flow leads, and with the actions beside it."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from services.contracts import names
from services.contracts.commands import File, Json
from services.contracts.flow import On

Phase = Literal[
    "new",
    "pause_before",
    "delay",
    "wait_before",
    "enter",
    "ask",
    "work",
    "approval",
    "exit",
    "result",
    "wait_after",
    "leave",
    "over",
]
"""What a visit is doing, in this order. `pause_before`, `wait_before`, `work`, `approval` and `wait_after`
last until somebody or something comes; `exit` and `result` run actions of `on-exit`, then of `on-success` or
`on-error`."""

ENDED = frozenset({"wait_after", "leave", "over"})
"""Phases of a step whose end has been told."""

MESSAGE_CHARS_MAX = 2000
"""Of a message made of others': a template may have a thousand faults."""


class Held(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How the work of a visit ended. It is told when the actions after it have ended too."""

    done: bool
    output: Json = None
    files: tuple[File, ...] = ()
    reason: str = ""
    message: str = ""
    skipped: bool = False


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One person's consent; `owner` is the person to whom the principal's key belongs."""

    by: str
    owner: str | None = None
    form: Json = None

    def people(self) -> frozenset[str]:
        """Everybody who this may be."""
        return names.people((self.by, self.owner))


class Visit(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One coming of the execution to a step. `number` counts them; `first` is the visit's first attempt.

    `actions` are the places, in the flow, of this phase's actions that are still to come; `awaited` is the
    name of the hook that must end first. `then` are the steps that come next: those of the gotos that fired,
    once the step has ended those that follow. `decision` is the last word on an approval.
    """

    number: int = 1
    first: int = 1
    phase: Phase = "new"
    until: datetime | None = None
    actions: tuple[int, ...] = ()
    awaited: str | None = None
    then: tuple[str, ...] = ()
    held: Held | None = None
    content_hash: str | None = None
    approvals: tuple[Approval, ...] = ()
    decision: str | None = None


class Hook(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What makes a step of the state an action beside one. `reason` and `message`: why it is tried again."""

    step: str
    written: str
    on: On
    visit: int
    wait: bool = False
    reason: str = ""
    message: str = ""


class Failure(Struct, frozen=True, kw_only=True, gc=False):
    """The latest error of an execution, kept after it was handled (S2 2.14, 2.15)."""

    step: str
    reason: str
    message: str


class Waiting(Struct, frozen=True, kw_only=True, gc=False):
    """What an execution was last said to wait for."""

    reason: str
    step: str | None = None

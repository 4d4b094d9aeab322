"""What people said about approvals: who, when, what; kept in the order in which it was said."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from services.contracts import events, public

WORDS_MAX = 500


class Word(Struct, frozen=True, gc=False):
    """`decision` is approved, rejected, expired or remarked; `remark` is the reason or the remark."""

    step: str
    decision: str
    by: str | None
    at: datetime
    owner: str | None = None
    remark: str | None = None
    form: Any = None
    content_hash: str | None = None
    approvals: int | None = None
    quorum: int | None = None


def with_word(
    said: tuple[Word, ...], event: events.ApprovalDecided | events.ApprovalRemarked
) -> tuple[Word, ...]:
    """The newest WORDS_MAX of them; the log has them all."""
    if isinstance(event, events.ApprovalRemarked):
        word = Word(event.step, "remarked", event.remarked_by, event.occurred_at, remark=event.remark)
    else:
        word = Word(
            step=event.step,
            decision=event.decision,
            by=event.decided_by,
            at=event.occurred_at,
            owner=event.owner,
            remark=event.reason,
            form=public.masked(event.form, event.secret_fields),
            content_hash=event.content_hash,
            approvals=event.approvals,
            quorum=event.quorum,
        )
    return (*said, word)[-WORDS_MAX:]

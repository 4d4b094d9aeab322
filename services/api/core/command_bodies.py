"""Bodies of commands to service requests, checked field by field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.contracts.errors import FieldError
from services.jobs.fields import Faults, Fields, listed, shown
from services.jobs.refused import Refused

TEXT_CHARS_MAX = 500
REVISIONS = ("same", "latest")
_HASH_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody says, as far as the command has a place for it."""

    reason: str | None
    remark: str | None
    content_hash: str | None
    form: Any


@dataclass(frozen=True, slots=True)
class Rerun:
    """How a request is run again."""

    reason: str | None
    from_failed: bool
    revision: str


def decision(body: Any, known: tuple[str, ...]) -> Decision:
    """A body with some of reason, remark, form, contentHash. Raises Refused."""
    faults = Faults()
    fields = Fields(body, "", known, faults)
    form = fields.get("form")
    if form is not None and not isinstance(form, Mapping):
        faults.add("form", f"expected an object, found {shown(form)}")
    read = Decision(
        reason=fields.text("reason", required=False, chars_max=TEXT_CHARS_MAX),
        remark=fields.text("remark", required=False, chars_max=TEXT_CHARS_MAX),
        content_hash=fields.text("contentHash", required=False, chars_max=_HASH_CHARS_MAX),
        form=form,
    )
    faults.raise_if_any()
    return read


def rerun(body: Any) -> Rerun:
    """`{fromFailed?, revision?, reason?}`. Raises Refused."""
    faults = Faults()
    fields = Fields(body, "", ("fromFailed", "revision", "reason"), faults)
    from_failed, revision = fields.get("fromFailed"), fields.get("revision")
    if not isinstance(from_failed, bool | None):
        faults.add("fromFailed", f"expected true or false, found {shown(from_failed)}")
    if revision is not None and revision not in REVISIONS:
        faults.add("revision", f"unknown word {shown(revision)}; known: {listed(REVISIONS)}")
    reason = fields.text("reason", required=False, chars_max=TEXT_CHARS_MAX)
    faults.raise_if_any()
    return Rerun(reason, from_failed is True, str(revision or REVISIONS[0]))


def values(body: Any) -> Mapping[str, Any]:
    """`{values}`. Raises Refused."""
    faults = Faults()
    found = Fields(body, "", ("values",), faults).get("values")
    if not isinstance(found, Mapping):
        faults.add("values", f"expected an object, found {shown(found)}")
    faults.raise_if_any()
    return dict(found)


def no_latest(id: str | None) -> Refused:
    """The fault of a rerun with the newest revision of a pipeline that there is no more."""
    message = f"the pipeline {shown(id)} has been deleted; use same"
    return Refused((FieldError("revision", message),))

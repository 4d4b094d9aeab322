"""The forms of names and sealed values, alike on every way in, and the limit of a request's size."""

import re
import unicodedata
from collections.abc import Iterable

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
PRINCIPAL = TENANT
DEFINITION_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
ORIGINS = frozenset({"ad_hoc", "scheduled", "manual", "backfill", "external"})

SEALED_PREFIX = "sealed:v1:"

REQUEST_BYTES_MAX = 256 * 1024
"""Of an encoded `job.requested`, its definition included. Its events and step orders hold parts of it again,
and must stay below the brokers' 1 MiB."""


def people(names: Iterable[str | None]) -> frozenset[str]:
    """The people who have these names, each as `person` writes it.

    It is for what somebody must not do. What somebody may do is given to a name as it is written.
    """
    return frozenset(person(name) for name in names if name is not None)


def person(name: str) -> str:
    """One text for all names of one person: `ada` and `Ada` differ by case or by a form of Unicode alone."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_sealed(text: str) -> bool:
    """Whether a text claims to be sealed; only opening it (runtime/sealing.py) proves it."""
    return text.startswith(SEALED_PREFIX)

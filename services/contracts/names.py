"""The forms of names and sealed values, alike on every way in, and the limit of a request's size."""

import re

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
PRINCIPAL = TENANT
DEFINITION_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
ORIGINS = frozenset({"ad_hoc", "scheduled", "manual", "backfill", "external"})

SEALED_PREFIX = "sealed:v1:"

REQUEST_BYTES_MAX = 256 * 1024
"""Of an encoded `job.requested`, its definition included. Its events and step orders hold parts of it again,
and must stay below the brokers' 1 MiB."""


def is_sealed(text: str) -> bool:
    """Whether a text claims to be sealed; only opening it (runtime/sealing.py) proves it."""
    return text.startswith(SEALED_PREFIX)

"""The forms of names that come from outside, alike on every way in, and the limit of a request's size."""

import re

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
PRINCIPAL = TENANT
DEFINITION_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
ORIGINS = frozenset({"ad_hoc", "scheduled", "manual", "backfill", "external"})

REQUEST_BYTES_MAX = 256 * 1024
"""Of an encoded `job.requested`, its definition included. Its events and step orders hold parts of it again,
and must stay below the brokers' 1 MiB."""

"""Where a take of a step puts things in the blob store, so that its readers find them.

`executions/<tenant>/<execution>/<step>/<attempt>-<take>/` holds the take's files, and below `log/` the parts
of its log: `000001`, `000002`, ... Keys hold few characters: a name such as `Make API Call` stands there as
`Make_API_Call@` and a piece of its hash.
"""

import hashlib
import re

LOG_PARTS_MAX = 999_999
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_READABLE_CHARS = 40
_HASH_DIGITS = 24


def take_folder(tenant: str, execution: str, step: str, attempt_id: str, take_id: str) -> str:
    """Everything that one take of an attempt writes stands below this key."""
    return f"executions/{tenant}/{execution}/{_segment(step)}/{attempt_id[:8]}-{take_id}"


def _segment(step: str) -> str:
    if _PLAIN.fullmatch(step):
        return step
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", step[:_READABLE_CHARS])
    return f"{readable}@{hashlib.sha256(step.encode()).hexdigest()[:_HASH_DIGITS]}"


def file_key(folder: str, name: str) -> str:
    """A file of the take that owns `folder`."""
    return f"{folder}/{name}"


def log_prefix(folder: str) -> str:
    """All parts of the take's log."""
    return f"{folder}/log"


def log_part(folder: str, number: int) -> str:
    """One part of the take's log, from 1; ValueError beyond LOG_PARTS_MAX."""
    if not 1 <= number <= LOG_PARTS_MAX:
        raise ValueError(f"number: expected 1 to {LOG_PARTS_MAX}, found {number}")
    return f"{log_prefix(folder)}/{number:06d}"

"""Where a take of a step puts things in the blob store, so that its readers find them.

`executions/<tenant>/<execution>/<step>/<attempt>-<take>/` holds the take's files, and below `log/` the parts
of its log: `000001`, `000002`, ... A step's name is part of a key and keeps to the form of its segments.
"""

LOG_PARTS_MAX = 999_999


def take_folder(tenant: str, execution: str, step: str, attempt_id: str, take_id: str) -> str:
    """Everything that one take of an attempt writes stands below this key."""
    return f"executions/{tenant}/{execution}/{step}/{attempt_id[:8]}-{take_id}"


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

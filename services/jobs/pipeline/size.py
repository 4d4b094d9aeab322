"""The size of a plan: a large action that many hooks call is copied into each of them."""

from typing import Any

import msgspec

from services.jobs.fields import Faults

PLAN_BYTES_MAX = 256 * 1024


class Size:
    """Counts what a plan is made of, and stops at once when it is too much."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._bytes = 0

    def add(self, part: Any) -> None:
        """One more part. Raises Refused when all of them take more than PLAN_BYTES_MAX as JSON."""
        self._bytes += len(msgspec.json.encode(part))
        if self._bytes > PLAN_BYTES_MAX:
            wanted = f"at most {PLAN_BYTES_MAX} bytes of steps with the actions that their hooks call"
            self._faults.add("body", f"expected {wanted}, found more")
            self._faults.raise_if_any()  # what follows would take time in proportion

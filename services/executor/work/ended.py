"""The outcomes that this process published last, so that no order is begun again which comes again.

A manager that starts publishes once more what its predecessor committed last, the orders of that batch among
them, and many of those have been carried out in the meantime: each would be a second call. The answer to such
an order is the same outcome once more, and not nothing: it may be the outcome that was lost.
"""

import threading
from collections import OrderedDict

from services.contracts.envelope import Outgoing

BYTES_MAX = 16 << 20
ENTRY_BYTES = 600
"""About what an outcome takes beside its value."""


class Ended:
    """The newest outcomes by attempt id, within BYTES_MAX of memory; safe from any thread."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._records: OrderedDict[str, Outgoing] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, attempt_id: str, record: Outgoing) -> None:
        """The broker has this outcome."""
        with self._lock:
            self._bytes += _size(record) - _size(self._records.pop(attempt_id, None))
            self._records[attempt_id] = record
            while self._bytes > self._bytes_max:
                self._bytes -= _size(self._records.popitem(last=False)[1])

    def get(self, attempt_id: str) -> Outgoing | None:
        """The outcome of an attempt that ended here, unless that was long ago."""
        with self._lock:
            return self._records.get(attempt_id)


def _size(record: Outgoing | None) -> int:
    return 0 if record is None else ENTRY_BYTES + len(record.value or b"")

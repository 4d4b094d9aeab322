"""Step logs as the blob store has them: parts of takes, put together in the order in which the takes ran."""

from dataclasses import dataclass
from typing import Any

from services.api.executions import Execution
from services.contracts import ids, places
from services.contracts.status import Status, StepStatus
from services.runtime.blobs import BlobMissing, Blobs

AT_ONCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Known:
    """The folders of a step's takes, oldest first; `over`: none will come, and none will add a line."""

    folders: tuple[str, ...]
    over: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of one take, and the position behind them: `<take, from 0>-<bytes of its log>`."""

    text: str
    position: str


def known(cursor: Any, row: Execution, step: str) -> Known | None:
    """What the tables know of a step's takes; None: the execution has no such step."""
    has_ended = Status(row.status).terminal
    if not row.steps and not has_ended:  # the manager has not planned it yet
        return Known((), over=False)
    statuses = [StepStatus(found["status"]) for found in row.steps if found["name"] == step]
    if not statuses:
        return None
    cursor.execute(
        "SELECT (body->>'attempt')::integer, body->>'take_id' FROM api.execution_event"
        " WHERE execution_id = %s AND tenant = %s AND type = 'step.running' AND body->>'step' = %s"
        " ORDER BY sequence",
        (row.execution_id, row.tenant, step),
    )
    folders = tuple(
        places.take_folder(
            row.tenant, row.execution_id, step, ids.attempt_id(row.execution_id, step, attempt), take_id
        )
        for attempt, take_id in cursor.fetchall()
    )
    # A worker ships its last part before it says how the step ended.
    return Known(folders, statuses[0].terminal or has_ended)


def reaches(blobs: Blobs, found: Known, take: int, offset: int) -> bool:
    """Whether the log has so many bytes of this take. Blocks; raises BlobsUnavailable."""
    if take >= len(found.folders):
        return False
    part = 1
    while offset > 0:
        try:
            offset -= blobs.size(places.log_part(found.folders[take], part))
        except BlobMissing:
            return False
        part += 1
    return True


class Tail:
    """Reads on from a position. Blocks; raises BlobsUnavailable, after which it reads on."""

    def __init__(self, blobs: Blobs, take: int = 0, offset: int = 0) -> None:
        """At the beginning, or behind a Piece."""
        self._blobs = blobs
        self._take = take
        self._offset = offset
        self._part = 1
        self._skip = offset
        self._pending = b""

    def read(self, found: Known) -> tuple[Piece, ...]:
        """Lines that have come since; about AT_ONCE_BYTES of them, so ask until there are none."""
        pieces: list[Piece] = []
        size = 0
        while self._take < len(found.folders) and size < AT_ONCE_BYTES:
            drained = self._fetch(found.folders[self._take])
            is_last = self._take == len(found.folders) - 1
            closed = drained and (found.over or not is_last)
            cut = len(self._pending) if closed else self._pending.rfind(b"\n") + 1
            cut = cut or (0 if drained else len(self._pending))  # a line without an end
            if cut:
                pieces.append(self._piece(cut))
                size += cut
            if closed:
                self._begin(self._take + 1)
            elif drained:
                break
        return tuple(pieces)

    def _fetch(self, folder: str) -> bool:
        """Add the next parts to what is pending; True: these were all."""
        while len(self._pending) < AT_ONCE_BYTES:
            try:
                part = b"".join(self._blobs.read(places.log_part(folder, self._part)))
            except BlobMissing:
                return True
            self._part += 1
            self._pending += part[self._skip :]
            self._skip = max(0, self._skip - len(part))
        return False

    def _piece(self, cut: int) -> Piece:
        text = self._pending[:cut].decode("utf-8", "replace").replace("\r", " ")
        self._pending = self._pending[cut:]
        self._offset += cut
        return Piece(text, f"{self._take}-{self._offset}")

    def _begin(self, take: int) -> None:
        self._take, self._offset, self._part, self._skip, self._pending = take, 0, 1, 0, b""

"""Whether a log of events is the one that was written: what was edited, dropped, reordered or inserted; pure.

Each event carries in its header `ms_chain` SHA-256(chain of the event before it + its own value bytes). So a
change of one record shows at that record and at no other, unless whoever changed it also computed the chains
of all that follow: that shows in no log, only in a copy of a chain kept elsewhere. Nor can a cut at the very
end be told from an execution that still runs; these are counted as open. Producers may write the same bytes
twice (after a crash): that is counted, and is no fault.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from services.contracts import events, ids
from services.contracts.events import Event

AFTER_THE_END = frozenset({"execution.rerun", "command.refused"})


class Kind(StrEnum):
    """What was done to the log."""

    EDITED = "edited"
    DROPPED = "dropped"
    REORDERED = "reordered"
    INSERTED = "inserted"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `sequence` is None where the record has none, `address` where there is no record."""

    kind: Kind
    execution_id: str
    sequence: int | None
    address: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the log, decoded. `chain` is what its header says; `faults` are contradictions in it."""

    address: str
    event: Event
    value: bytes
    chain: bytes
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class _Seen:
    """One record that claims a sequence. Its value is kept only while its link is not known to hold."""

    address: str
    digest: bytes
    chain: bytes
    value: bytes | None
    holds: bool = False
    followed: bool = False
    computed: bytes | None = None
    """The chain that its bytes give; differs from `chain` where the header was altered."""


@dataclass(slots=True)
class Story:
    """The records of one execution, in the order of the log."""

    execution_id: str
    ended: int | None = None
    """The sequence of the terminal event."""
    repeated: int = 0
    _seen: dict[int, list[_Seen]] = field(default_factory=dict)
    _highest: int = 0
    _findings: list[Finding] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """The next record."""
        sequence, digest = entry.event.sequence, hashlib.sha256(entry.value).digest()
        claims = self._seen.setdefault(sequence, [])
        if any((claim.digest, claim.chain) == (digest, entry.chain) for claim in claims):
            self.repeated += 1
            return
        if sequence < self._highest and not claims:
            self._find(Kind.REORDERED, sequence, entry.address, f"it lies behind sequence {self._highest}")
        claim = _Seen(entry.address, digest, entry.chain, entry.value)
        claims.append(claim)
        self._highest = max(self._highest, sequence)
        if events.type_of(entry.event) in events.TERMINAL and self.ended is None:
            self.ended = sequence
        for fault in entry.faults:
            self._find(Kind.EDITED, sequence, entry.address, fault)
        self._link(sequence, claim)
        for later in self._seen.get(sequence + 1, ()):
            self._link(sequence + 1, later)

    def findings(self) -> Iterator[Finding]:
        """Every fault, in order of sequence."""
        missing = [s for s in range(1, self._highest) if s not in self._seen]
        for first, last in _ranges(missing):
            what = f"sequence {first}" if first == last else f"sequences {first} to {last}"
            self._find(Kind.DROPPED, first, None, f"{what}: not in the log, though later ones are")
        for sequence, claims in self._seen.items():
            true = max(claims, key=lambda claim: (claim.followed, claim.holds))
            for claim in claims:
                if claim is not true:
                    why = f"the log has another record of this sequence, {true.address}"
                    self._find(Kind.INSERTED, sequence, claim.address, why)
            self._judge(sequence, true)
        return iter(sorted(self._findings, key=lambda finding: finding.sequence or 0))

    def _judge(self, sequence: int, claim: _Seen) -> None:
        if claim.holds or (sequence > 1 and sequence - 1 not in self._seen):
            return  # where the one before is gone, nothing can be said of this one
        if self.ended is not None and sequence > self.ended:
            why = f"the execution had ended at sequence {self.ended}, and its chain does not follow from that"
            self._find(Kind.INSERTED, sequence, claim.address, why)
            return
        other = (
            f" (or those of sequence {sequence - 1}, with its chain computed anew)" if sequence > 1 else ""
        )
        why = f"its bytes and its header ms_chain do not belong together: one of them was altered{other}"
        self._find(Kind.EDITED, sequence, claim.address, why)

    def _link(self, sequence: int, claim: _Seen) -> None:
        """Look for the record that this one follows."""
        if claim.value is None:
            return
        for former in [None] if sequence == 1 else self._seen.get(sequence - 1, []):
            for base in (b"",) if former is None else filter(None, (former.chain, former.computed)):
                computed = ids.chain(base, claim.value)
                claim.computed = claim.computed or computed
                if computed == claim.chain:
                    claim.holds, claim.value = True, None
                    if former is not None:
                        former.followed = True
                    return

    def _find(self, kind: Kind, sequence: int, address: str | None, message: str) -> None:
        self._findings.append(Finding(kind, self.execution_id, sequence, address, message))


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """[1, 2, 3, 7] -> [(1, 3), (7, 7)]."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found

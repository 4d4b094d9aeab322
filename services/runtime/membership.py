"""Whether a group still lists its member, and what to do when it does not.

A client can be out of its group for good and not know it (librdkafka#2944, #3396, #3082): it asks for its
coordinator again and again, none of its callbacks comes, and it keeps the partitions that it had. So another
client asks the group itself.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException

from services.runtime.kafka import SESSION_S, Admin
from services.runtime.settings import Kafka

REQUEST_TIMEOUT_S = 5.0
CLOSE_S = 2.0

Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a group is asked, and how long a member may be out of it, in seconds."""

    ask_s: float = 30.0
    doubt_s: float = 5.0
    """How often it is asked while its last answer was not that all is well."""
    sure_s: float = 10.0
    """An answer that it does not list us must have lasted so long: rejoining takes a moment."""
    out_s: float = SESSION_S + 30.0


PATIENCE = Patience()


class Verdict(Enum):
    """What a member should do now."""

    STAY = "stay"
    REJOIN = "rejoin"
    END = "end"


class OutOfGroup(Exception):
    """A new client did not help: only a new process does."""


class Vigil:
    """One member's standing in its group. Instants are those of one monotonic clock, in seconds."""

    def __init__(self, group: str, ask: Callable[[], "Future[bool]"], now: float, patience: Patience) -> None:
        """`ask` does not wait; its future holds whether the group lists us, or why nobody answers."""
        self._group, self._ask, self._patience = group, ask, patience
        self._asked: Future[bool] | None = None
        self._rejoined = False
        self.begin(now)

    def begin(self, now: float) -> None:
        """A client joins from now on: it is given its time."""
        self._good_at, self._ask_at = now, now + self._patience.doubt_s
        self._doubt_at: float | None = None
        self._asked = None

    @property
    def trouble(self) -> str | None:
        """What is wrong as far as is known; None when nothing is."""
        return None if self._doubt_at is None else self.reason

    @property
    def reason(self) -> str:
        """Why the last answer was not good."""
        return f"group {self._group} does not list this member, or gives it nothing to read"

    def look(self, now: float, unread_s: float = 0.0) -> Verdict:
        """Ask when it is time, and judge what was answered since. `unread_s` is for how long a record of ours
        has lain unread: a member that is listed and reads nothing is none."""
        if self._asked is None:
            if now >= self._ask_at:
                self._asked = self._ask()
        elif self._asked.done():
            asked, self._asked = self._asked, None
            return self._judge(asked, now, unread_s)
        return Verdict.STAY

    def _judge(self, asked: "Future[bool]", now: float, unread_s: float) -> Verdict:
        self._ask_at = now + self._patience.doubt_s
        if asked.exception() is not None:
            self._doubt_at = None  # without a broker there is no group to be in, and a new client cannot help
        elif asked.result() and unread_s <= self._patience.out_s:
            self._good_at, self._ask_at = now, now + self._patience.ask_s
            self._doubt_at, self._rejoined = None, False
        else:
            self._doubt_at = now if self._doubt_at is None else self._doubt_at
            is_sure = now - self._doubt_at >= self._patience.sure_s
            if is_sure and now - self._good_at > self._patience.out_s:
                return self._lost(now)
        return Verdict.STAY

    def _lost(self, now: float) -> Verdict:
        if self._rejoined:
            return Verdict.END
        self._rejoined = True
        self.begin(now)
        return Verdict.REJOIN


class Unread(Generic[Place]):
    """Places where records lie and reading stands still, although nobody holds it up."""

    def __init__(self) -> None:
        self._stands: dict[Place, tuple[int, float]] = {}

    def note(self, ends: Mapping[Place, int], read_to: Callable[[Place], int], now: float) -> None:
        """Compare the ends of all places that are read now with how far reading has come, as offsets."""
        before, self._stands = self._stands, {}
        for place, end in ends.items():
            if (at := read_to(place)) < end:
                since = before[place][1] if place in before and before[place][0] == at else now
                self._stands[place] = (at, since)

    def age_s(self, read_to: Callable[[Place], int], now: float) -> float:
        """For how long a record has been seen to lie unread, in seconds; 0 when none does."""
        stuck = (since for place, (at, since) in self._stands.items() if read_to(place) == at)
        return max((now - since for since in stuck), default=0.0)

    def forget(self) -> None:
        """Reading was held up, or begins anew."""
        self._stands = {}


def ask(settings: Kafka, group: str, client_id: str) -> "Future[bool]":
    """Whether the group has a member of this client id; either protocol. Does not wait.

    Each question has a client of its own, closed at once. In one that goes on, a question that has timed out
    waiting for a coordinator may abort the process when that comes back (librdkafka 2.16, an assertion on
    `eonce->refcnt`); and what ails another client cannot ail this one.
    """
    listed: Future[bool] = Future()

    def run() -> None:
        try:
            with Admin(settings, f"{client_id}-asks") as admin:
                described = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)
                members = described[group].result().members
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                listed.set_result(False)
            else:
                listed.set_exception(RuntimeError(str(error)))
        else:
            listed.set_result(any(member.client_id == client_id for member in members))

    threading.Thread(target=run, name="asking", daemon=True).start()
    return listed


def leave(consumer: Consumer) -> None:
    """Close it within CLOSE_S; a client that is stuck is left to a thread of its own, which nobody awaits."""

    def close() -> None:
        with suppress(KafkaException, RuntimeError):
            consumer.close()

    thread = threading.Thread(target=close, name="leaving", daemon=True)
    thread.start()
    thread.join(CLOSE_S)

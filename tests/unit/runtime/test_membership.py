"""When a member counts as out of its group, by a clock of the test."""

from concurrent.futures import Future
from itertools import pairwise

from services.runtime.membership import PATIENCE, Unread, Verdict, Vigil

IN, OUT, AWAY = True, False, None


class Group:
    """Answers at once what the test says; None: nobody answers."""

    def __init__(self) -> None:
        self.says: bool | None = IN
        self.asked_at: list[float] = []
        self.now = 0.0
        self.vigil = Vigil("millstream-executor", self.ask, 0.0, PATIENCE)

    def ask(self) -> "Future[bool]":
        self.asked_at.append(self.now)
        answer: Future[bool] = Future()
        if self.says is None:
            answer.set_exception(RuntimeError("no broker"))
        else:
            answer.set_result(self.says)
        return answer

    def turn_for(self, seconds: float, unread_s: float = 0.0) -> list[tuple[float, Verdict]]:
        """Ten turns a second; what was judged, and when, but for STAY."""
        found: list[tuple[float, Verdict]] = []
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 1)
            if (verdict := self.vigil.look(self.now, unread_s)) is not Verdict.STAY:
                found.append((self.now, verdict))
        return found


def test_a_member_is_asked_about_every_thirty_seconds() -> None:
    group = Group()
    assert group.turn_for(300) == []
    assert all(later - at >= PATIENCE.ask_s for at, later in pairwise(group.asked_at))
    assert len(group.asked_at) == 10


def test_a_member_that_is_out_for_its_session_and_thirty_seconds_joins_anew_and_then_ends() -> None:
    group = Group()
    group.turn_for(60)
    group.says = OUT
    lost_at = group.asked_at[-1]
    (rejoined_at, rejoin), (ended_at, end) = group.turn_for(150)[:2]
    assert (rejoin, end) == (Verdict.REJOIN, Verdict.END)
    assert PATIENCE.out_s < rejoined_at - lost_at < PATIENCE.out_s + PATIENCE.ask_s
    assert PATIENCE.out_s < ended_at - rejoined_at < PATIENCE.out_s + PATIENCE.ask_s


def test_a_member_that_came_back_by_itself_is_left_alone() -> None:
    group = Group()
    group.turn_for(60)
    group.says = OUT
    assert group.turn_for(12) == []
    assert (group.vigil.trouble or "").startswith("group millstream-executor does not list this member")
    group.says = IN
    assert group.turn_for(300) == []
    assert group.vigil.trouble is None


def test_a_broker_that_is_away_says_nothing_and_its_return_gives_time_to_join() -> None:
    group = Group()
    group.turn_for(60)
    group.says = AWAY
    assert group.turn_for(3600) == []
    group.says = OUT
    back_at = group.now
    ((rejoined_at, verdict), *_) = group.turn_for(30)
    assert verdict is Verdict.REJOIN
    assert PATIENCE.sure_s <= rejoined_at - back_at <= PATIENCE.sure_s + 2 * PATIENCE.doubt_s


def test_a_freeze_that_costs_the_membership_is_mended_within_thirty_seconds() -> None:
    group = Group()
    group.turn_for(100)
    group.says = AWAY
    group.turn_for(30)
    group.says = OUT
    thawed_at = group.now
    ((rejoined_at, _), *_) = group.turn_for(60)
    assert rejoined_at - thawed_at < 20


def test_a_member_that_is_listed_and_reads_nothing_joins_anew() -> None:
    group = Group()
    group.turn_for(60)
    ((_, verdict), *_) = group.turn_for(60, unread_s=PATIENCE.out_s + 1)
    assert verdict is Verdict.REJOIN


def test_a_record_is_unread_while_reading_stands_still_before_it() -> None:
    unread: Unread[str] = Unread()
    position = {"a": 5, "b": 7}
    unread.note({"a": 9, "b": 7}, position.__getitem__, 100.0)
    assert unread.age_s(position.__getitem__, 130.0) == 30.0
    unread.note({"a": 12, "b": 8}, position.__getitem__, 130.0)
    assert unread.age_s(position.__getitem__, 140.0) == 40.0
    position["a"] = 6
    assert unread.age_s(position.__getitem__, 140.0) == 10.0, "what moves is read"
    unread.forget()
    assert unread.age_s(position.__getitem__, 150.0) == 0.0

"""A learning platform that never was: courses, their batches in channels, learners, progress and scores.

Everything is a function of one fixed seed, so each machine has the same bytes. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

SEED = 20161207
LEARNERS_MAX = 120
BATCHES_EACH = 2
CHANNELS = ("TPD", "NCFCOPY", "NTP", "CBSE")
DISTRICTS = ("Agra", "Bidar", "Chittoor", "Dausa", "Erode", "Fatehpur")

Row = tuple[object, ...]

COURSE_COLUMNS = (
    "course_id text NOT NULL, course_name text NOT NULL, framework text NOT NULL, prev_state text NOT NULL,"
    " created_on date NOT NULL, channel text NOT NULL, batch_id text NOT NULL, learner_id text NOT NULL,"
    " district text NOT NULL"
)
TABLES = {
    "course_progress": f"{COURSE_COLUMNS}, enrolled_on date NOT NULL, completed_on date,"
    " progress_percent integer NOT NULL, PRIMARY KEY (batch_id, learner_id)",
    "assessment_score": f"{COURSE_COLUMNS}, assessment_id text NOT NULL, attempt integer NOT NULL,"
    " attempted_on date NOT NULL, score integer NOT NULL, max_score integer NOT NULL,"
    " PRIMARY KEY (batch_id, learner_id, assessment_id, attempt)",
}


@dataclass(frozen=True)
class Course:
    """What is taught; S1 calls it a content."""

    id: str
    name: str
    framework: str
    prev_state: str
    created_on: date


COURSES = (
    Course("do_11305960936384921612216", "Foundational literacy", "tpd", "Draft", date(2020, 7, 3)),
    Course("do_1130934466492252161819", "Teaching with stories", "tpd", "Draft", date(2020, 8, 21)),
    Course("do_1131001122334455661001", "Numbers at home", "ncf", "Live", date(2020, 9, 1)),
    Course("do_1131001122334455661002", "Science by experiment", "ncf", "Draft", date(2020, 9, 15)),
    Course("do_1131001122334455661003", "Safe on the internet", "k-12", "Review", date(2020, 10, 2)),
)


class Dice:
    """Knuth's linear congruential generator: the same on every machine and in every version."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._state >> 33) % count

    def one_of(self, choices: Sequence[str]) -> str:
        """One of the choices."""
        return choices[self.below(len(choices))]


def rows() -> Iterator[tuple[str, Row]]:
    """Every row as (table, values in the order of its columns)."""
    dice = Dice(SEED)
    number = 0
    for course in COURSES:
        for channel in CHANNELS:
            for _ in range(BATCHES_EACH):
                number += 1
                yield from _batch(dice, course, channel, f"0130{100_000_000_000_000 + number * 7919:015}")


def batches(channels: Sequence[str], courses: Sequence[str]) -> list[str]:
    """The ids of the batches that these channels hold of these courses, in order."""
    found = {
        str(row[6])
        for table, row in rows()
        if table == "course_progress" and row[5] in channels and row[0] in courses
    }
    return sorted(found)


def _batch(dice: Dice, course: Course, channel: str, batch_id: str) -> Iterator[tuple[str, Row]]:
    start = course.created_on + timedelta(days=10 + dice.below(60))
    for learner in range(20 + dice.below(LEARNERS_MAX - 20)):
        learner_id = f"learner-{batch_id[-7:]}-{learner:03}"
        who: Row = (
            *(course.id, course.name, course.framework, course.prev_state, course.created_on, channel),
            *(batch_id, learner_id, dice.one_of(DISTRICTS)),
        )
        enrolled = start + timedelta(days=dice.below(14))
        progress = min(100, dice.below(140))
        completed = enrolled + timedelta(days=7 + dice.below(60)) if progress == 100 else None
        yield "course_progress", (*who, enrolled, completed, progress)
        for attempt in range(1, 1 + dice.below(3)):
            on = enrolled + timedelta(days=7 * attempt + dice.below(5))
            yield "assessment_score", (*who, f"{course.id}_quiz", attempt, on, dice.below(21), 20)

import pytest

from tests.waiting import until, until_async


def test_returns_the_first_true_answer() -> None:
    answers = iter([None, 0, "done", "later"])
    assert until(lambda: next(answers), 5, "an answer") == "done"


def test_asks_once_even_without_time_and_names_the_fact() -> None:
    with pytest.raises(AssertionError, match=r"waited 0 s for three files; last seen: \[\]"):
        until(list, 0, "three files")


def test_an_exception_of_the_question_is_the_failure() -> None:
    def broken() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        until(broken, 5, "nothing")


async def test_waits_in_a_coroutine_too() -> None:
    answers = iter([None, "done"])

    async def ask() -> str | None:
        return next(answers)

    assert await until_async(ask, 5, "an answer") == "done"
    with pytest.raises(AssertionError, match="the impossible"):
        await until_async(never, 0, "the impossible")


async def never() -> bool:
    return False

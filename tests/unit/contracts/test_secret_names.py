"""Which names hide their value, and what is shown of values."""

import re

import pytest

from services.contracts.public import declared, masked
from services.contracts.secret_names import PATTERN, is_secret


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "Api-Key",
            "api_key",
            "accessToken",
            "SESSION",
            "session_id",
            "sessionId",
            "cardNumber",
        ),
        *("pin", "card_pin", "cardPin", "PIN", "cvv", "cvv2", "cvc", "otp", "set-cookie", "authorization"),
    ],
)
def test_a_name_of_a_secret_hides_its_value(name: str) -> None:
    assert is_secret(name)
    assert masked({name: "4711"}) == {name: "***"}
    assert masked([{"a": {name: 4711}}]) == [{"a": {name: "***"}}]


@pytest.mark.parametrize(
    "name", ["shipping", "opinion", "pinned", "spin", "title", "standard", "order", "passenger", "sidebar"]
)
def test_a_name_that_only_holds_a_short_word_hides_nothing(name: str) -> None:
    assert not is_secret(name)


def test_what_a_form_declares_is_hidden_whatever_its_name() -> None:
    form = {"form": [{"name": "a", "secret": True}, {"name": "b"}, {"name": "c", "secret": "yes"}, 7]}
    assert declared(form) == {"a"}
    assert declared(None) == declared({"form": 7}) == frozenset()
    assert masked({"a": {"x": 1}, "b": {"a": 2}}, declared(form)) == {"a": "***", "b": {"a": 2}}
    assert masked({"a": None}, {"a"}) == {"a": None}


@pytest.mark.parametrize("text", ["pin=1234", "card_pin: 1", "otp = 1", "password=x"])
def test_the_pattern_finds_names_in_text(text: str) -> None:
    assert re.search(PATTERN, text, re.IGNORECASE)
    assert not re.search(PATTERN, "shipping=1, opinion: 2", re.IGNORECASE)

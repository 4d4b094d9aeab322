"""From the manager's filling to the worker's: values arrive as they are, secrets where the definition is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.calls import request
from services.executor.core import filling
from tests.calls import api

SECRETS = {"token": "canary"}
TEMPLATE = {
    "method": "POST",
    "url": "https://shop.example/${id}",
    "query": {"q": "${text}"},
    "headers": {"Authorization": "Bearer ${secrets.token}", "X-Id": "${id}"},
    "data": {
        "whole": "${value}",
        "part": "<${text}> $$${text} $${secrets.token}",
        "beside": "${secrets.token}${text}${secrets.token}",
    },
}
PIECES = st.sampled_from(
    ["$", "{", "}", "${", "$${", "${secrets.token}", "secrets.token", "a", "ä", " ", '"', "\\"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def sent(text: str, value: Any) -> request.Request:
    """What the worker sends for the template, after both have filled it."""
    values = {"id": "o-1", "text": text, "value": value}
    filled = filling.call(TEMPLATE, values)
    filled.pop("method")
    return request.read(api(**{"method": "POST", **filled}), SECRETS)


@given(TEXTS, VALUES)
def test_values_arrive_as_they_are(text: str, value: Any) -> None:
    call = sent(text, value)
    assert json.loads(call.body) == {
        "whole": value,
        "part": f"<{text}> ${text} ${{secrets.token}}",
        "beside": f"canary{text}canary",
    }
    assert call.headers["Authorization"] == "Bearer canary"
    assert "canary" not in call.url


@pytest.mark.parametrize(
    "text", ["${secrets.token}", "$${secrets.token}", "${secrets", "${text}", "$", "$$$"]
)
def test_a_value_cannot_ask_for_a_secret(text: str) -> None:
    body = json.loads(sent(text, {text: [text]}).body)
    assert body["whole"] == {text: [text]}
    assert "canary" not in body["part"] + json.dumps(body["whole"])

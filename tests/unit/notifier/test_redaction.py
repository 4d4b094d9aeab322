"""What is kept of an answer holds none of the secrets that were sent."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.core.redaction import snippet
from services.runtime.redaction import MASK, SHORTEST, redact

SECRET = "Bearer canary-31415926"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("all is well", "all is well"),
        (f"got {SECRET}!", f"got {MASK}!"),
        ("token canary-31415926 is unknown", f"token {MASK} is unknown"),
        ("cut off: canary-3141", f"cut off: {MASK}"),
        ("cut off: Bearer cana", f"cut off: {MASK}"),
        ("cut off: can", "cut off: can"),
        ("", ""),
    ],
)
def test_secrets_are_masked(text: str, kept: str) -> None:
    assert redact(text, [SECRET, "ab"]) == kept


@given(
    st.text("abAB *", max_size=40),
    st.text("abAB ", min_size=SHORTEST, max_size=20),
    st.text("abAB *", max_size=40),
)
def test_no_secret_is_left(before: str, secret: str, after: str) -> None:
    if secret not in MASK:
        assert secret not in redact(before + secret + after, [secret])


def test_the_rest_is_readable_text() -> None:
    assert snippet(b"caf\xc3\xa9 \xff\x00", "", []) == "café ��"
    assert snippet(b"plain", " Identity ", []) == "plain"


def test_a_compressed_answer_is_not_kept() -> None:
    kept = snippet(gzip.compress(SECRET.encode()), "gzip", [SECRET])
    assert kept == "(compressed as 'gzip', not kept)"

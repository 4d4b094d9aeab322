"""The quick reader agrees with the strict one on everything that it reads."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.api.core import plain, submission
from services.api.core.submission import Submission
from services.contracts import ids
from services.jobs import documents
from services.jobs.documents import Malformed
from services.jobs.refused import Refused

TEXT = st.text(max_size=60)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {"jobType": TEXT | SCALARS},
    optional={
        "name": TEXT | SCALARS,
        "tag": TEXT | SCALARS,
        "params": st.dictionaries(TEXT, VALUES, max_size=4) | VALUES,
        "dataset": TEXT,
        "runAt": TEXT,
    },
)


def strict(raw: bytes) -> tuple[Submission, str] | None:
    try:
        body = documents.parse_json(raw)
        return submission.read(body), ids.body_hash(body)
    except (Malformed, Refused):
        return None


@given(BODIES, st.booleans())
def test_what_is_read_is_what_the_strict_reader_reads(body: Any, escaped: bool) -> None:
    raw = json.dumps(body, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    quick = plain.read(raw)
    assert quick is None or quick == strict(raw)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(b'{"jobType":"noop"}')
def test_any_bytes(raw: bytes) -> None:
    quick = plain.read(raw)
    assert quick is None or quick == strict(raw)


@pytest.mark.parametrize(
    "text",
    [
        '{"jobType":"noop"}',
        '{ "tag" : "t", "jobType" : "noop", "name": "\\u00e9\\n", "params": {} }',
        '{"jobType":"noop","params":{"a":[1,2.5,{"b":null}],"c":{"d":true}}}',
        '{"jobType":"noop","params":{"a":[-1,9223372036854775807]}}',
    ],
)
def test_plain_ones_are_read(text: str) -> None:
    quick = plain.read(text.encode())
    assert quick is not None
    assert quick == strict(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"jobType":"noop","jobType":"noop"}',
        '{"jobType":"noop","params":{"a":1,"a":1}}',
        '{"jobType":"noop","params":{"a":1,"a" :1}}',
        '{"jobType":"noop","params":{"a":1,"\\u0061":1}}',
        '{"jobType":"noop","params":{"a":18446744073709551615}}',
        '{"jobType":"noop","params":{"a":"\\u0000"}}',
        '{"jobType":"noop","name":""}',
        '{"jobType":"noop","tag":null}',
        '{"jobType":"noop","params":{"v":1231231231231234123.5}}',
        '{"jobType":"noop","callbacks":[]}',
        '{"jobType":"noop","params":' + '{"a":' * 40 + "1" + "}" * 41,
        '{"jobType":"noop","params":{"' + "k" * 257 + '":1}}',
        '{"jobType":"noop","name":"' + "n" * 9000 + '"}',
    ],
)
def test_what_needs_care_is_left_to_the_strict_reader(text: str) -> None:
    assert plain.read(text.encode()) is None

"""Names of files: no two files of an execution share one, and manifests are known by theirs."""

import re

from hypothesis import given
from hypothesis import strategies as st

from services.contracts import file_names
from services.jobs.dataset import BATCH_NAME
from services.jobs.pipeline import names

STEPS = st.one_of(
    st.from_regex(r"[a~.-]{1,3}(~report|~reports-b|-manifest)?(~2)?", fullmatch=True), st.text(max_size=9)
).filter(lambda name: names.fault_of(name) is None)
BATCHES = st.from_regex(r"[b2](\.csv|-2|\.b)?", fullmatch=True).filter(BATCH_NAME.fullmatch)
PLAIN = st.one_of(
    st.sampled_from(["report.csv", file_names.MANIFEST]), BATCHES.map(lambda batch: f"reports-{batch}.csv")
)
File = tuple[str, str, int]
FILES = st.tuples(STEPS, PLAIN, st.integers(1, 30))


@given(FILES, FILES)
def test_two_files_of_an_execution_have_two_names(one: File, other: File) -> None:
    assert (file_names.of_step(*one) == file_names.of_step(*other)) == (one == other)


@given(FILES)
def test_manifests_are_known_by_their_names(file: File) -> None:
    found = re.search(file_names.MANIFESTS, file_names.of_step(*file))
    assert (found is not None) == (file[1] == file_names.MANIFEST)


def test_the_longest_name_fits_into_file_systems_and_routes() -> None:
    longest = file_names.of_step("s" * names.NAME_BYTES_MAX, f"reports-{'b' * 108}.csv", 99_999)
    assert len(longest) <= file_names.CHARS_MAX


def test_a_name_that_is_taken_becomes_the_steps_next_one() -> None:
    taken: set[str] = set()
    for step in ("a", "b", "b", "b"):
        taken.add(file_names.free(step, "report.csv", taken))
    assert taken == {"report.csv", "b~report.csv", "b~report~2.csv", "b~report~3.csv"}

"""Step logs: what stands in the file and in the parts, and what does not."""

from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from services.contracts import places
from services.executor.work import logs
from services.executor.work.logs import Logs
from services.executor.work.partition import Place
from services.executor.work.take import Take
from services.runtime.blobs import Blobs, connect, in_memory
from services.runtime.entropy import LocalClock
from tests import exporting
from tests.exporting import ATTEMPT, EXECUTION, TAKE
from tests.waiting import until

SECRET = "postgresql://reader:s3cr%40t@warehouse/db"


@pytest.fixture
def blobs() -> Blobs:
    return in_memory()


@pytest.fixture
def kept(tmp_path: Path, blobs: Blobs) -> Logs:
    return Logs(tmp_path, blobs, [SECRET], LocalClock())


def take(**changes: Any) -> Take:
    request = exporting.step(
        {"source": "main", "table": "public.t", "columns": [{"name": "id", "type": "integer"}]}
    )
    return Take(replace(request, **changes), TAKE, "tests", Place(0, 0), 0.0)


def shipped(blobs: Blobs, step: str) -> list[bytes]:
    folder = places.take_folder("acme", EXECUTION, step, ATTEMPT, TAKE)
    keys = sorted(blob.key for blob in blobs.list(places.log_prefix(folder)))
    assert keys == [places.log_part(folder, number + 1) for number in range(len(keys))]
    return [b"".join(blobs.read(key)) for key in keys]


def test_lines_stand_in_the_file_and_in_the_parts(kept: Logs, blobs: Blobs, tmp_path: Path) -> None:
    one = take()
    log = kept.of(one)
    log.logger().info("file_written", file="reports-1.csv", rows=5)
    log.logger().warning("slow_source")
    log.close()
    written = (tmp_path / EXECUTION / f"{one.request.step}.log").read_bytes()
    first, second = written.decode().splitlines()
    assert first.endswith(" info file_written file=reports-1.csv rows=5")
    assert second.endswith(" warning slow_source")
    assert b"".join(shipped(blobs, one.request.step)) == written


def test_a_running_step_s_lines_are_shipped_within_a_second_or_so(kept: Logs, blobs: Blobs) -> None:
    one = take()
    kept.of(one).logger().info("begun")
    until(lambda: shipped(blobs, one.request.step), 5, "a part")


def test_a_step_without_a_line_has_no_log(kept: Logs, blobs: Blobs, tmp_path: Path) -> None:
    kept.of(take()).close()
    assert [*tmp_path.iterdir()] == []
    assert [*blobs.list("executions")] == []


def test_a_later_attempt_adds_to_the_file(kept: Logs, tmp_path: Path) -> None:
    for attempt in ("1" * 40, "2" * 40):
        log = kept.of(take(attempt_id=attempt))
        log.logger().info("begun", of=attempt[:1])
        log.close()
    (file,) = (tmp_path / EXECUTION).iterdir()
    assert [line.rpartition(" ")[2] for line in file.read_text().splitlines()] == ["of=1", "of=2"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"connecting to {SECRET}", "connecting to ***"),
        ("the password is s3cr@t, or s3cr%40t", "the password is ***, or ***"),
        ("see https://me:mine@example.com/x", "see https://***@example.com/x"),
        ("password=hidden and more", "password=*** and more"),
        ("{'api_key': 'hidden', 'n': 1}", "{'api_key': '***', 'n': 1}"),
        ("Authorization: Bearer hidden", "Authorization: Bearer ***"),
        ("two\nlines\r", "two lines "),
    ],
)
def test_secrets_do_not_show(kept: Logs, said: str, shown: str) -> None:
    assert kept.redacted(said) == shown


def test_of_an_exception_the_type_alone_is_told(kept: Logs, tmp_path: Path) -> None:
    log = kept.of(take())
    try:
        raise ValueError("canary-secret")
    except ValueError:
        log.logger().exception("step_raised")
    log.close()
    (file,) = (tmp_path / EXECUTION).iterdir()
    assert file.read_text().endswith(" error step_raised error=ValueError\n")


def test_a_log_has_an_end(kept: Logs, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 200_000)
    one = take()
    log = kept.of(one)
    for _ in range(100):
        log.logger().info("x" * 10_000)
    log.close()
    parts = shipped(blobs, one.request.step)
    assert all(len(part) <= logs.PART_BYTES for part in parts)
    assert 190_000 < sum(map(len, parts)) < 210_000
    assert parts[-1].endswith(b"the log ends here: it has reached 200000 bytes\n")


@pytest.mark.parametrize(
    "changes",
    [{"execution_id": "../elsewhere"}, {"step": "../../x"}, {"step": ".hidden"}, {"execution_id": ""}],
)
def test_names_that_are_no_names_of_files_have_no_log(
    kept: Logs, blobs: Blobs, tmp_path: Path, changes: dict[str, str]
) -> None:
    log = kept.of(take(**changes))
    log.logger().info("begun")
    log.close()
    assert [*tmp_path.iterdir()] == []
    assert [*blobs.list("executions")] == []


def test_a_link_in_the_file_s_place_is_not_followed(kept: Logs, blobs: Blobs, tmp_path: Path) -> None:
    one = take()
    target = tmp_path / "target"
    (tmp_path / EXECUTION).mkdir()
    (tmp_path / EXECUTION / f"{one.request.step}.log").symlink_to(target)
    log = kept.of(one)
    log.logger().info("begun")
    log.close()
    assert not target.exists()
    assert shipped(blobs, one.request.step)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def stored(tmp_path: Path, folder: Path) -> tuple[Logs, Blobs]:
    store = connect(f"file://{folder}")
    return Logs(tmp_path / "logs", store, [], LocalClock()), store


def closed(kept: Logs, step: str) -> None:
    log = kept.of(take(step=step))
    log.logger().info("begun")
    log.close()


def gone(folder: Path) -> Path:
    """The store is away until this is the folder again."""
    away = folder.rename(folder.with_name("away"))
    folder.write_text("no folder")
    return away


def back(folder: Path, away: Path) -> None:
    folder.unlink()
    away.rename(folder)


def test_the_end_of_a_log_waits_for_a_store_that_is_away(stored: tuple[Logs, Blobs], folder: Path) -> None:
    kept, store = stored
    away = gone(folder)
    closed(kept, "late")
    back(folder, away)
    (part,) = until(lambda: shipped(store, "late"), 10, "the late part")
    assert part.endswith(b" info begun\n")


@pytest.mark.parametrize(("name", "bound"), [("LATE_S", 0.0), ("LATE_MAX", 1)])
def test_not_every_late_log_is_kept_for_ever(
    stored: tuple[Logs, Blobs], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: float
) -> None:
    monkeypatch.setattr(logs, name, bound)
    kept, store = stored
    with structlog.testing.capture_logs() as said:
        away = gone(folder)
        closed(kept, "first")
        closed(kept, "second")
        given_up = 2 if name == "LATE_S" else 1
        until(lambda: [line["event"] for line in said].count("step_log_cut_off") == given_up, 10, "the end")
    back(folder, away)
    closed(kept, "third")
    until(lambda: len(shipped(store, "second")) == 2 - given_up, 10, "the second log, unless it is given up")
    assert shipped(store, "third")
    assert shipped(store, "first") == []


@pytest.mark.parametrize("step", ["Make API Call", "größer", "a@b", "x.on-exit.1.1", "漢" * 33])
def test_a_step_of_any_name_has_its_log(kept: Logs, blobs: Blobs, tmp_path: Path, step: str) -> None:
    log = kept.of(take(step=step))
    log.logger().info("begun")
    log.close()
    (file,) = (tmp_path / EXECUTION).iterdir()
    assert file.name == f"{step}.log"
    assert shipped(blobs, step) == [file.read_bytes()]


def test_names_that_look_alike_have_places_of_their_own() -> None:
    names = [
        "Make API Call",
        "Make_API_Call",
        "Make-API Call",
        "make api call",
        "Make API Call ",
        "a@b",
        "a_b",
    ]
    places_of = {places.take_folder("acme", EXECUTION, name, ATTEMPT, TAKE) for name in names}
    assert len(places_of) == len(names)

"""Which step logs stay on a worker's machine, and how long."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.executor.work.log_folder import sweep

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEPT = timedelta(days=30)
OLD, NEW, BOTH = "a" * 40, "b" * 40, "c" * 40


def add(folder: Path, execution: str, step: str, age: timedelta) -> Path:
    path = folder / execution / f"{step}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text("a line")
    at = (NOW - age).timestamp()
    os.utime(path, (at, at))
    return path


def test_a_log_is_deleted_after_its_days_and_then_its_folder(tmp_path: Path) -> None:
    add(tmp_path, OLD, "Export", KEPT + timedelta(seconds=1))
    add(tmp_path, BOTH, "Export", KEPT + timedelta(seconds=1))
    kept = {
        add(tmp_path, NEW, "Export", KEPT - timedelta(seconds=1)),
        add(tmp_path, BOTH, "Mail", timedelta()),
    }
    assert sweep(tmp_path, NOW, KEPT) == 2
    assert {*tmp_path.rglob("*.log")} == kept
    assert not (tmp_path / OLD).exists()
    assert sweep(tmp_path, NOW, KEPT) == 0


def test_what_is_no_step_log_of_ours_stays(tmp_path: Path) -> None:
    add(tmp_path, "lost+found", "Export", 2 * KEPT)
    add(tmp_path, OLD, "Export", 2 * KEPT).with_suffix(".txt").write_text("a note")
    assert sweep(tmp_path, NOW, KEPT) == 1
    assert (tmp_path / "lost+found" / "Export.log").exists() and (tmp_path / OLD / "Export.txt").exists()


def test_a_folder_that_is_not_there_yet_has_no_logs(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", NOW, KEPT) == 0

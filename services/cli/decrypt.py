"""`millstream decrypt`: open a sealed file of the blob store without api (docs/sealed-files.md)."""

import os
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from pydantic import BaseModel

from services.cli import output
from services.cli.failure import Failed
from services.cli.targets import Choice
from services.runtime import blobs, setting_values, settings
from services.runtime.blobs import BlobMissing, BlobsUnavailable
from services.runtime.container import ContainerError, Files, SealedFile
from services.runtime.settings import PREFIX, SettingsError


class Settings(BaseModel):
    """Where the files are, and the keys that open them."""

    blobs: settings.Blobs
    files: settings.Files


def decrypt(
    context: typer.Context,
    key: Annotated[
        str, typer.Argument(help="The blob key: executions/<tenant>/<execution>/<step>/<take>/<name>.")
    ],
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; without it, standard output.")
    ] = None,
) -> None:
    """Open a sealed file, with MILLSTREAM_BLOBS__URL and MILLSTREAM_FILES__KEYS or a local stack's --data."""
    words = key.split("/")
    if len(words) < 3 or words[0] != "executions":
        raise Failed(f"KEY: expected executions/<tenant>/..., found {key!r}")
    try:
        chosen = settings.load(Settings, _environment(context.find_object(Choice)))
        keys = setting_values.parse_keys(chosen.files.keys.get_secret_value())
        sealed = Files(blobs.connect(chosen.blobs.url), keys).open(words[1], key)
        if to is None:
            _copy(sealed, sys.stdout.buffer)
        else:
            _write(sealed, to)
            output.note(f"{to}: {output.size(sealed.size)}, SHA-256 {sealed.sha256}")
    except BlobMissing:
        raise Failed(f"{key}: expected a file with this key, found none") from None
    except (BlobsUnavailable, ContainerError, SettingsError, ValueError) as error:
        raise Failed(str(error)) from None


def _environment(choice: Choice | None) -> dict[str, str]:
    """This environment; a local stack's data folder goes first where one was named."""
    if choice is None or choice.data is None:
        return dict(os.environ)
    folder, ours = choice.data.resolve(), (f"{PREFIX}BLOBS__", f"{PREFIX}FILES__KEYS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        f"{PREFIX}BLOBS__URL": f"file://{folder}/blobs",
        f"{PREFIX}FILES__KEYS_FILE": f"{folder}/secrets/file-keys",
    }


def _copy(sealed: SealedFile, target: BinaryIO) -> None:
    target.writelines(sealed.read())
    target.flush()


def _write(sealed: SealedFile, path: Path) -> None:
    """The whole file or none: what was written before a fault is removed."""
    try:
        target = path.open("xb")
    except OSError as error:
        raise Failed(f"{path}: expected a new file, found {error.strerror}") from None
    try:
        with target:
            _copy(sealed, target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise

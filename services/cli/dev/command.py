"""The command `millstream dev`."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from services.cli.dev import screen
from services.cli.dev.folder import DEFAULT_DATA, DevError, Folder
from services.cli.dev.supervisor import Supervisor
from services.cli.targets import Choice
from services.runtime import signals
from services.runtime.settings import SettingsError

_HELP = f"The folder that keeps everything between starts. Default: {DEFAULT_DATA}"
DataFolder = Annotated[Path | None, typer.Option("--data", help=_HELP)]


def folder_of(context: typer.Context, data: Path | None) -> Folder:
    """The data folder that is named after the command, before it, or not at all."""
    chosen: Choice = context.obj
    return Folder(data or chosen.data or DEFAULT_DATA)


def dev(context: typer.Context, data: DataFolder = None) -> None:
    """Start Kafka, PostgreSQL and every process on this machine; Ctrl-C drains and stops them.

    A second start finds its data. MILLSTREAM_DATABASE_URL and MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS name
    servers of your own instead.
    """
    stop = signals.install()
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # a closed terminal drains as well
    folder = folder_of(context, data)
    try:
        folder.create()
        folder.own()
        screen.line(f"millstream dev: data folder {folder.root}")
        Supervisor(folder, os.environ, stop).run()
    except (DevError, SettingsError) as error:
        screen.bad(str(error))
        raise typer.Exit(1) from None
    finally:
        folder.release()

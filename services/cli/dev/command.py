"""The command `millstream dev`."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from services.cli.dev import screen
from services.cli.dev.folder import DEFAULT_DATA, DevError, Folder
from services.cli.dev.supervisor import Supervisor
from services.runtime import signals
from services.runtime.settings import SettingsError

DataFolder = Annotated[Path, typer.Option("--data", help="The folder that keeps everything between starts.")]


def dev(data: DataFolder = DEFAULT_DATA) -> None:
    """Start Kafka, PostgreSQL and every process on this machine; Ctrl-C drains and stops them.

    A second start finds its data. MILLSTREAM_DATABASE_URL and MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS name
    servers of your own instead.
    """
    stop = signals.install()
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # a closed terminal drains as well
    folder = Folder(data)
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

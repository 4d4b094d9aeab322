"""A worker without one of its threads is no worker."""

import os
import subprocess
import sys
from pathlib import Path

from services.cli.dev.folder import free_port
from tests import exporting

CODE = """
import os, sys, threading
from services.executor import worker
from services.executor.settings import WorkerSettings
from services.runtime import settings, signals

def install():
    threading.Timer(0.5, lambda: 1 // 0).start()
    return threading.Event()

signals.install = install
sys.exit(worker.main(settings.load(WorkerSettings, os.environ)))
"""


def test_a_thread_that_dies_ends_the_worker(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",  # nobody is there, and a worker waits
        "MILLSTREAM_BLOBS__URL": f"file://{tmp_path}/blobs",
        "MILLSTREAM_FILES__KEYS": exporting.keys_text(),
        "MILLSTREAM_SOURCES__MAIN": "postgresql://nobody@127.0.0.1:1/none",
        "MILLSTREAM_HEALTH__PORT": str(free_port(0, set())),
        "MILLSTREAM_WORKER__LOG_FOLDER": str(tmp_path / "executor_logs"),
    }
    command = [sys.executable, "-c", CODE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "thread_crashed" in ended.stdout + ended.stderr

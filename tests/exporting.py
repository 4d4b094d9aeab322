"""What tests of the export share: requests as the planner makes them, a context, and psql's own COPY."""

import base64
import hashlib
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import structlog

from services import jobs
from services.cli.dev import postgres
from services.contracts.commands import Definition, JobRequested, StepRequested
from services.executor.calls.outbound import Caller, Outbound
from services.executor.steps.source import Sources
from services.executor.steps.step import Cancellation, Context, Totals
from services.jobs.sources import Tenants
from services.runtime.blobs import Blobs, in_memory
from services.runtime.container import Files
from tests.stack import transaction
from tests.waiting import PROGRAM_S

AT = datetime(2026, 1, 1, tzinfo=UTC)
EXECUTION = "e" * 40
ATTEMPT = "a" * 40
TAKE = "f" * 20
KEYS = {"f1": bytes(range(32))}


def job(dataset: Mapping[str, Any] | None, **changes: Any) -> JobRequested:
    """A request for an export of `dataset`; `params` and `time_range` go where a caller would put them."""
    parameters = {"params": changes.pop("params", {}), "time_range": changes.pop("time_range", None)}
    definition = dataset and Definition(kind="dataset", id="things-report", revision=1, body=dict(dataset))
    fields: dict[str, Any] = {
        "execution_id": EXECUTION,
        "tenant": "acme",
        "requested_at": AT,
        "created_by": "tests",
        "name": "test",
        "job_type": "export",
        "definition": definition or None,
        "parameters": parameters,
    }
    return JobRequested(**{**fields, **changes})


def step(dataset: Mapping[str, Any], timeout_s: int | None = None, **changes: Any) -> StepRequested:
    """The first attempt of the export's one step."""
    (planned,) = jobs.plan(job(dataset, **changes))
    return StepRequested(
        attempt_id=ATTEMPT,
        execution_id=EXECUTION,
        tenant="acme",
        step=planned.name,
        kind=planned.kind,
        attempt=1,
        parameters=planned.parameters,
        timeout_s=timeout_s or planned.timeout_s,
        requested_at=AT,
    )


def outbound(*allow: str, **secrets: str) -> Outbound:
    """A caller that may reach these networks; the secrets are those of the tenant acme."""
    caller = Caller([ip_network(network) for network in allow], "Millstream/test")
    return Outbound(caller, {"acme": secrets})


@dataclass(slots=True)
class World:
    """A blob store in memory, the sources given, and what the step reported."""

    sources: Mapping[str, str]
    tenants: Tenants | None = None  # open to all
    blobs: Blobs = field(default_factory=in_memory)
    parts: list[tuple[Totals, str]] = field(default_factory=list)
    cancelled: Cancellation = field(default_factory=Cancellation)
    on_part: Callable[[], None] = lambda: None
    outbound: Outbound = field(default_factory=outbound)

    def context(self, take: str = TAKE) -> Context:
        """What the step is given."""

        def progress(totals: Totals, detail: str) -> None:
            self.parts.append((totals, detail))
            self.on_part()

        log = structlog.get_logger()
        files = Files(self.blobs, KEYS)
        tenants = dict.fromkeys(self.sources, ("*",)) if self.tenants is None else self.tenants
        sources = Sources(self.sources, tenants)
        return Context(take, files, sources, progress, self.cancelled, log, self.outbound)

    def content(self, key: str) -> bytes:
        """A whole file, opened."""
        return opened(self.blobs, key)


def opened(blobs: Blobs, key: str) -> bytes:
    """The plain bytes of a file that a test's worker sealed."""
    return b"".join(Files(blobs, KEYS).open("acme", key).read())


def keys_text() -> str:
    """KEYS as a setting."""
    return ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in KEYS.items())


def cut(source_url: str) -> None:
    """End the worker's sessions on a source."""
    with transaction(source_url) as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'millstream-worker' AND datname = current_database()"
        )


# A parallel plan would give psql the rows in another order on every run.
PSQL_ENVIRONMENT = {
    "PGTZ": "UTC",
    "PGCLIENTENCODING": "UTF8",
    "PGOPTIONS": "-c max_parallel_workers_per_gather=0 -c synchronize_seqscans=off",
}


def psql_copy(url: str, query: str) -> bytes:
    """What psql's own `\\copy` of this query gives."""
    command = [str(postgres.binaries() / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url]
    copy = f"\\copy ({query}) TO STDOUT WITH (FORMAT csv, HEADER)"
    done = subprocess.run(
        [*command, "-c", copy], capture_output=True, check=False, env=PSQL_ENVIRONMENT, timeout=PROGRAM_S
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def sha256(content: bytes) -> str:
    """In hex."""
    return hashlib.sha256(content).hexdigest()

"""`millstream dev` and `millstream doctor` with the real processes."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from services.cli.dev import orphans, roles
from services.cli.dev.parts import PORTS
from services.runtime import kafka
from services.runtime.settings import Kafka
from tests import local, waiting
from tests.stack import own_stack, transaction

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]
ENDED = frozenset({"completed", "failed", "cancelled", "rejected", "completed_with_warnings"})


@pytest.fixture(scope="module")
def taken() -> Iterator[set[int]]:
    """The default ports, taken by us, but for those that somebody else on this machine has now."""
    with default_ports_taken() as ports:
        yield ports


@pytest.fixture(scope="module")
def dev(taken: set[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Local]:
    """A running stack for the tests that do not stop it."""
    with local.running(tmp_path_factory.mktemp("dev")) as running:
        yield running


@contextlib.contextmanager
def default_ports_taken() -> Iterator[set[int]]:
    ports: set[int] = set()
    with contextlib.ExitStack() as listeners:
        for port in PORTS.values():
            listener = listeners.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                listener.listen()
                ports.add(port)
        yield ports


def test_taken_ports_are_replaced_and_recorded(dev: local.Local, taken: set[int]) -> None:
    ports = dev.state["ports"]
    assert set(ports) == set(PORTS)
    assert len(set(ports.values())) == len(PORTS)
    assert not set(ports.values()) & taken
    assert dev.state["api_url"] == f"http://127.0.0.1:{ports['api']}"
    for part in ("kafka", "topics", "postgres", "schemas", "api", "manager", "worker", "notifier"):
        assert f"  ok  {part}" in dev.output


def test_an_execution_runs_with_the_printed_key(dev: local.Local) -> None:
    assert dev.api_key in dev.output
    assert _run_noop(dev)["status"] == "completed"


def test_a_second_start_on_the_folder_is_refused(dev: local.Local) -> None:
    result = _millstream("dev", "--data", str(dev.folder.root))
    assert result.returncode == 1
    assert f"found it in use by process {dev.process.pid}" in result.stdout
    assert dev.process.poll() is None


def test_roles_see_their_own_schema_only(dev: local.Local) -> None:
    files = dev.state["database_url_files"]
    for schema, path in files.items():
        url = Path(path).read_text(encoding="utf-8")
        assert roles.may_create_roles(url) is False
        for owner in files:
            allowed = _may_use_schema(url, owner)
            assert allowed is (owner == schema), (schema, owner)


def test_the_role_that_serves_can_only_add_to_the_words_of_steps(dev: local.Local) -> None:
    with roles.session(Path(dev.state["database_url_files"]["api"]).read_text(encoding="utf-8")) as cursor:
        cursor.execute("SELECT count(*) FROM api.step_event")
        for statement in ("DELETE FROM api.step_event", "DROP TABLE api.step_event"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    doctor = _millstream("--data", str(dev.folder.root), "doctor")
    assert "ok  append-only table" in doctor.stdout


def test_secrets_are_private_and_not_in_logs(dev: local.Local) -> None:
    secrets = [path for path in dev.folder.secrets.iterdir() if path.is_file()]
    assert secrets
    assert dev.folder.state_file.stat().st_mode & 0o077 == 0
    logs = "".join(path.read_text(errors="replace") for path in dev.folder.logs.iterdir())
    for path in secrets:
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.read_text(encoding="utf-8").strip() not in logs, path


def test_a_killed_process_starts_again_with_a_visible_line(dev: local.Local) -> None:
    for name in ("worker", "api"):
        before = dev.state["pids"][name]
        psutil.Process(before).kill()
        dev.await_line(f"{name} was killed by signal 9", 30)
        waiting.until(partial(_runs_anew, dev, name, before), 90, f"another {name}")
    _await_healthy(dev)
    assert _run_noop(dev)["status"] == "completed"


def test_killed_servers_start_again(dev: local.Local) -> None:
    for name in ("kafka", "postgres"):
        before = dev.state["pids"][name]
        psutil.Process(before).kill()
        dev.await_line(f"{name} ended; starts again", 30)
        waiting.until(partial(_runs_anew, dev, name, before), 90, f"another {name}")
    _await_healthy(dev)
    assert _run_noop(dev)["status"] == "completed"


def test_doctor_names_a_topic_that_differs_and_a_process_that_hangs(dev: local.Local) -> None:
    _await_healthy(dev)
    with kafka.Admin(Kafka(bootstrap_servers=dev.state["kafka_bootstrap"]), "tests") as admin:
        admin.delete_topics(["job.requested.dlq"], operation_timeout=30)["job.requested.dlq"].result(30)
    worker = psutil.Process(dev.state["pids"]["worker"])
    worker.suspend()
    try:
        result = _doctor(dev)
    finally:
        worker.resume()
    assert result.returncode == 1
    assert "job.requested.dlq: expected to exist, found no such topic" in result.stdout
    assert f"mend: MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS={dev.state['kafka_bootstrap']} " in result.stdout
    assert "worker: expected to be ready, found" in result.stdout
    apply = _millstream("topics", "apply", MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS=dev.state["kafka_bootstrap"])
    assert "created job.requested.dlq" in apply.stdout
    _await_healthy(dev)


def test_kill_nine_of_everything(tmp_path: Path) -> None:
    """Once here; the long fault run does it again and again."""
    with local.running(tmp_path) as running:
        seen = str(_run_noop(running)["execution_id"])
        running.kill_everything()
    with local.running(tmp_path) as running:
        assert _execution(running, seen)["status"] == "completed"
        assert running.stop() == 0
        _assert_nothing_left(tmp_path)
        stopped = [line.split()[1] for line in running.output.splitlines() if " stopped " in line]
        assert stopped == ["api", "manager", "worker", "notifier", "kafka", "postgres"]
        assert running.state["status"] == "stopped"


def test_what_a_killed_supervisor_left_is_ended_and_its_ports_are_used_again(tmp_path: Path) -> None:
    with default_ports_taken(), local.running(tmp_path) as running:  # so that nobody else takes ours later
        ports = running.state["ports"]
        running.process.kill()
        running.exit_code()
    doctor = _millstream("doctor", "--data", str(tmp_path))
    assert doctor.returncode == 1
    assert "it was killed; the next start cleans up" in doctor.stdout
    with local.running(tmp_path) as running:
        assert "ended: a killed run left it on this data folder" in running.output
        assert running.state["ports"] == ports
        assert running.stop() == 0
    _assert_nothing_left(tmp_path)


def test_servers_of_the_user(tmp_path: Path) -> None:
    with own_stack(tmp_path / "servers") as servers:
        roles.ensure_database(servers.database_url, "mine")
        roles.ensure_role(servers.database_url, "plain", "secret")
        connection = psycopg2.connect(servers.database_url)
        connection.autocommit = True
        connection.cursor().execute("ALTER DATABASE mine OWNER TO plain")
        connection.close()
        url = roles.as_role(roles.in_database(servers.database_url, "mine"), "plain", "secret")
        environ = {
            "MILLSTREAM_DATABASE_URL": url,
            "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": servers.bootstrap,
        }
        with local.running(tmp_path / "data", environ) as running:
            assert "may not create roles: every process uses it as it is" in running.output
            assert running.state["kafka_bootstrap"] == servers.bootstrap
            assert running.state["pids"]["postgres"] is None
            assert _run_noop(running)["status"] == "completed"
            doctor = _millstream("doctor", "--data", str(tmp_path / "data"), **environ)
            assert doctor.returncode == 0
            assert "??  api.step_event: expected a role that can only add to it" in doctor.stdout
            assert running.stop() == 0
        assert servers.broker.is_running()
        assert servers.postgres.is_running()


def test_doctor_names_missing_programs(tmp_path: Path) -> None:
    nowhere = str(tmp_path)
    result = _millstream("doctor", "--data", str(tmp_path / "data"), PATH=nowhere, XDG_CACHE_HOME=nowhere)
    assert result.returncode == 1
    for line in (
        "java: expected version 17 or newer on the PATH, found none",
        "mend: apt install openjdk-17-jre-headless",
        "mvn: expected Maven on the PATH, found none",
        "Kafka's jars: expected in ",
        "millstream dev: expected to run, found that it does not",
        f"mend: millstream dev --data {tmp_path}/data",
    ):
        assert line in result.stdout


def test_doctor_names_a_source_that_no_tenant_may_use(tmp_path: Path) -> None:
    key, secret = "MILLSTREAM_SOURCES__SALES", "postgresql://reader:s3cret@127.0.0.1/sales"
    found = _millstream("doctor", "--data", str(tmp_path), **{key: secret})
    assert found.returncode == 1
    assert (
        f"!!  {key}: expected beside {key}__TENANTS, found it alone: source sales is closed" in found.stdout
    )
    assert f"mend: set {key}__TENANTS=tenant[,...], or * for all, for api and the workers" in found.stdout
    assert "s3cret" not in found.stdout + found.stderr
    found = _millstream("doctor", "--data", str(tmp_path), **{key: secret, f"{key}__TENANTS": "acme"})
    assert "ok  sources" in found.stdout


def test_a_wrong_setting_stops_everything_before_it_starts(tmp_path: Path) -> None:
    result = _millstream("dev", "--data", str(tmp_path), MILLSTREAM_WORKER__LANE="3")
    assert result.returncode == 1
    assert "MILLSTREAM_WORKER__LANE: expected a setting that exists" in result.stdout
    _assert_nothing_left(tmp_path)


def _millstream(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("MILLSTREAM_")}
    command = [sys.executable, "-m", "services.cli", *words]
    return subprocess.run(
        command, env={**own, **environ}, capture_output=True, text=True, timeout=120, check=False
    )


def _runs_anew(dev: local.Local, name: str, before: int) -> bool:
    return dev.state["pids"][name] not in (None, before)


def _doctor(dev: local.Local) -> subprocess.CompletedProcess[str]:
    return _millstream("doctor", "--data", str(dev.folder.root))


def _await_healthy(dev: local.Local) -> None:
    said: list[str] = []

    def is_healthy() -> bool:
        result = _doctor(dev)
        said.append(result.stdout)
        return result.returncode == 0

    try:
        waiting.until(is_healthy, 90, "doctor to find nothing")
    except AssertionError:
        raise AssertionError(said[-1]) from None


def _client(dev: local.Local) -> httpx.Client:
    headers = {"Authorization": f"Bearer {dev.api_key}"}
    return httpx.Client(base_url=dev.state["api_url"], headers=headers, trust_env=False, timeout=30)


def _run_noop(dev: local.Local) -> Mapping[str, object]:
    with _client(dev) as client:
        answer = client.post("/v1/executions", json={"jobType": "noop"})
        assert answer.status_code == 202, answer.text
        execution_id = answer.json()["execution_id"]

    def ended() -> Mapping[str, object] | None:
        execution = _execution(dev, execution_id)
        return execution if execution["status"] in ENDED else None

    return waiting.until(ended, 60, "the noop to end")


def _execution(dev: local.Local, execution_id: str) -> Mapping[str, object]:
    with _client(dev) as client:
        answer = client.get(f"/v1/executions/{execution_id}")
        assert answer.status_code == 200, answer.text
        body: Mapping[str, object] = answer.json()
        return body


def _may_use_schema(url: str, schema: str) -> bool:
    with transaction(url) as cursor:
        cursor.execute("SELECT has_schema_privilege(%s, 'USAGE')", (schema,))
        row = cursor.fetchone()
        return bool(row and row[0])


def _assert_nothing_left(folder: Path) -> None:
    assert not orphans.services(folder / "secrets")
    assert not orphans.brokers(folder / "kafka")
    assert not orphans.databases(folder / "postgres" / "data")

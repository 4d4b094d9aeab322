"""Everything over SASL_SSL, each process as its own user, on a broker that allows what is declared."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import psycopg2
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from services.cli.dev import jars, parts
from services.cli.dev.child import readiness, tail
from services.cli.dev.folder import free_port
from services.contracts.topics import PROCESSES
from services.executor.work.taking import GROUPS
from services.runtime import database, kafka, migrations
from services.runtime.settings import PREFIX, SettingsError
from tests.receiver import receiving_aside
from tests.requesting import new_key
from tests.secured import ADMIN, TIMEOUT_S, SecuredBroker
from tests.stack import Stack, remember
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

STRANGER = "stranger"
USERS = {"api": "api", "manager": "executor-manager", "worker": "executor-worker", "notifier": "notifier"}
"""Process of `parts.PARTS` -> its user."""
KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"
REFUSED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


@pytest.fixture(scope="module")
def broker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """With users, topics and ACLs as an operator would make them."""
    folder = tmp_path_factory.mktemp("secured")
    remember(folder)
    taken: set[int] = set()
    ports = free_port(0, taken), free_port(0, taken)
    made = SecuredBroker(folder / "kafka", jars.ensure(), folder / "kafka.log", *ports)
    try:
        made.start()
        made.add_users(*PROCESSES, STRANGER)
        for words in (("apply",), ("acls", "--apply")):
            done = _topics(made, ADMIN, *words)
            assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.stop()


def test_all_four_processes_work_each_as_its_own_user(
    stack: Stack, broker: SecuredBroker, tmp_path: Path
) -> None:
    database_url = stack.fresh_database()
    for schema in parts.SCHEMAS:
        migrations.migrate(database_url, schema)
    key = new_key(database_url, "alice")
    with ExitStack() as ends, receiving_aside() as receiver:
        ports = _started(broker, database_url, tmp_path, ends)
        answer = httpx.post(
            f"http://127.0.0.1:{ports['api']}/v1/executions",
            headers={"Authorization": f"Bearer {key}", "Prefer": "wait=30"},
            json={"jobType": "noop", "callback": {"url": receiver.url(), "events": ["execution.completed"]}},
            timeout=60,
        )
        assert answer.json()["status"] == "completed", answer.text
        until(lambda: receiver.calls, 30, "the webhook")
        for name in USERS:
            assert "AUTHORIZATION" not in (tmp_path / f"{name}.log").read_text().upper(), name


def test_what_no_acl_allows_is_refused(broker: SecuredBroker) -> None:
    assert _produced(broker, STRANGER, "job.requested") in REFUSED
    assert _produced(broker, "executor-worker", "execution.events") in REFUSED
    assert _produced(broker, "notifier", "job.requested") in REFUSED
    assert _produced(broker, "executor-manager", "job.requested") is None
    reader = Consumer(kafka.consumer_config(broker.settings("notifier"), "tests", "millstream-executor"))
    reader.subscribe(["execution.events"])

    def refusal() -> int | None:
        message = reader.poll(1.0)
        error = None if message is None else message.error()
        return None if error is None else error.code()

    try:
        assert until(refusal, 30, "the refusal") == KafkaError.GROUP_AUTHORIZATION_FAILED
    finally:
        reader.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"KAFKA__SECURITY__PASSWORD": "wrong"},
        {"KAFKA__SECURITY__CA": "/etc/ssl/certs/ca-certificates.crt"},
    ],
    ids=["a wrong password", "a certificate of nobody that is trusted"],
)
def test_who_cannot_prove_it_is_not_let_in(broker: SecuredBroker, changes: Mapping[str, str]) -> None:
    if not all(Path(value).exists() for value in changes.values() if value.startswith("/")):
        pytest.skip("this machine has no list of authorities")
    settings = broker.settings(ADMIN, **{f"{PREFIX}{key}": value for key, value in changes.items()})
    with kafka.Admin(settings, "tests") as admin, pytest.raises(KafkaException):
        admin.describe_cluster(request_timeout=3.0).result(TIMEOUT_S)


def test_plain_passwords_over_tls_are_one_more_mechanism(broker: SecuredBroker) -> None:
    settings = broker.settings(ADMIN, **broker.environ(ADMIN, mechanism="PLAIN"))
    with kafka.Admin(settings, "tests") as admin:
        assert admin.describe_cluster(request_timeout=10.0).result(TIMEOUT_S).nodes


def test_tls_of_the_database_is_asked_for_in_its_url(stack: Stack) -> None:
    """The server of the tests has none, and nobody goes on without."""
    url = f"{stack.fresh_database()}?sslmode=verify-full"
    with pytest.raises(psycopg2.OperationalError, match="SSL"):
        database.connect(url, "tests")
    with pytest.raises(Exception, match="SSL"):
        migrations.migrate(url, "notifier")


def test_the_command_prints_every_rule_and_takes_names_of_users(broker: SecuredBroker) -> None:
    done = _topics(broker, STRANGER, "acls", "--user", "api=CN=api.example.com")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "User:CN=api.example.com may WRITE topic job.requested" in lines
    assert "User:executor-manager may READ group millstream-executor" in lines
    assert {f"User:executor-worker may READ group {group}" for group in GROUPS.values()} <= {*lines}
    assert _topics(broker, STRANGER, "acls", "--apply").returncode == 1, "a stranger may change no ACL"
    assert _topics(broker, STRANGER, "acls", "--user", "nobody=x").returncode == 2


def test_half_a_sign_in_is_refused_at_start(broker: SecuredBroker) -> None:
    with pytest.raises(SettingsError) as refused:
        broker.settings(
            ADMIN, **{f"{PREFIX}KAFKA__SECURITY__PASSWORD": "", f"{PREFIX}KAFKA__SECURITY__CA": "/x"}
        )
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        f"{PREFIX}KAFKA__SECURITY__CA"
    ]


def _started(broker: SecuredBroker, database_url: str, folder: Path, ends: ExitStack) -> dict[str, int]:
    taken: set[int] = set()
    shared = {
        "PATH": os.environ["PATH"],
        f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
        f"{PREFIX}KAFKA__GROUP_PROTOCOL": "consumer",
        f"{PREFIX}BLOBS__URL": f"file://{folder / 'blobs'}",
        f"{PREFIX}OUTBOUND__ALLOW": "127.0.0.0/8",
        f"{PREFIX}WORKER__LOG_FOLDER": str(folder / "executor_logs"),
        **{f"{PREFIX}{name}__KEYS": KEYS for name in ("SEALING", "FILES", "LINKS")},
    }
    ports: dict[str, int] = {}
    for part in parts.PARTS:
        ports |= {name: free_port(0, taken) for name in part.ports}
        environ = shared | part.port_settings(ports) | broker.environ(USERS[part.name])
        if part.schema is not None:
            environ[f"{PREFIX}DATABASE_URL"] = database_url
        with (folder / f"{part.name}.log").open("wb") as log:
            process = subprocess.Popen(parts.command(part.words), env=environ, stdout=log, stderr=log)
        ends.callback(process.wait, 40)
        ends.callback(process.terminate)
    for part in parts.PARTS:
        until(
            partial(_is_ready, ports[part.health], folder / f"{part.name}.log"),
            60,
            f"{part.name} to be ready",
        )
    return ports


def _is_ready(port: int, log: Path) -> bool:
    """Fails with the log once the process has said why it ends."""
    assert "Traceback" not in log.read_text(errors="replace"), tail(log)
    return readiness(port) is None


def _topics(broker: SecuredBroker, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap}
    line = [sys.executable, "-m", "services.cli", "topics", *words]
    return subprocess.run(
        line, env=environ | broker.environ(user), capture_output=True, text=True, timeout=120, check=False
    )


def _produced(broker: SecuredBroker, user: str, topic: str) -> int | None:
    """The code of the refusal; None when the broker took the record."""
    answers: list[int | None] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        answers.append(None if error is None else error.code())

    producer = Producer(kafka.producer_config(broker.settings(user), f"tests-{user}"))
    try:
        producer.produce(topic, value=b"", on_delivery=on_delivery)
    except KafkaException as refused:
        return int(refused.args[0].code())
    producer.flush(30)
    (answer,) = answers
    return answer

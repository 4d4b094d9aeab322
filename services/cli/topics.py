"""`millstream topics`: create the declared topics, and refuse a broker whose topics differ."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from services.cli import acls as access_lists
from services.cli import targets
from services.cli.acls import Users
from services.cli.failure import Failed
from services.contracts import access
from services.contracts import topics as contract
from services.contracts.access import Rule
from services.contracts.topics import Topic
from services.runtime import kafka

DECLARATION = Path(__file__).parents[2] / "schemas" / "topics.yaml"
TIMEOUT_S = 30.0
POLL_S = 0.05

app = typer.Typer(no_args_is_help=True, help="Create and verify the Kafka topics of schemas/topics.yaml.")


def declared() -> tuple[Topic, ...]:
    """The topics of schemas/topics.yaml. Raises TopicsError."""
    return contract.parse(DECLARATION.read_text(encoding="utf-8"))


def declared_access() -> list[Rule]:
    """What each process may do, by schemas/topics.yaml. Raises TopicsError."""
    text = DECLARATION.read_text(encoding="utf-8")
    return access.rules(contract.parse(text), contract.parse_groups(text))


def create_missing(admin: AdminClient, topics: Sequence[Topic]) -> list[str]:
    """Create the topics that do not exist; returns their names. Raises KafkaException."""
    # -1: the broker's default replication factor, 1 on a laptop and 3 in a cluster
    wanted = [NewTopic(t.name, t.partitions, -1, config=t.broker_config()) for t in topics]
    created: list[str] = []
    for name, future in admin.create_topics(wanted, operation_timeout=TIMEOUT_S).items():
        try:
            future.result(TIMEOUT_S)
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    await_visible(admin, created)
    return created


def await_visible(admin: AdminClient, names: Sequence[str]) -> None:
    """Wait until the broker serves metadata of created topics: the controller confirms a moment earlier.

    Raises TimeoutError after TIMEOUT_S.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while names and (absent := set(names) - kafka.topic_facts(admin, names).keys()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"topics: expected the broker to know {sorted(absent)}, found it does not")
        time.sleep(POLL_S)


def differences(admin: AdminClient, topics: Sequence[Topic]) -> list[str]:
    """One line per topic that is missing or differs: both values, what to do. Raises KafkaException."""
    facts = kafka.topic_facts(admin, [topic.name for topic in topics])
    lines = [
        f"{topic.name}: expected to exist, found no such topic; run `millstream topics apply`"
        for topic in topics
        if topic.name not in facts
    ]
    present = [topic for topic in topics if topic.name in facts]
    lines += [
        f"{topic.name}: expected {topic.partitions} partitions, found {facts[topic.name].partition_count};"
        " a count cannot be changed in place: stop the processes, drain or delete the topic, then run"
        " `millstream topics apply`"
        for topic in present
        if facts[topic.name].partition_count != topic.partitions
    ]
    return [*lines, *_config_differences(admin, present)]


def _config_differences(admin: AdminClient, topics: Sequence[Topic]) -> Iterator[str]:
    resources = {topic.name: ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics}
    if not resources:
        return
    answers = {
        resource.name: future
        for resource, future in admin.describe_configs(
            list(resources.values()), request_timeout=TIMEOUT_S
        ).items()
    }
    for topic in topics:
        found = answers[topic.name].result(TIMEOUT_S)
        for setting, expected in topic.broker_config().items():
            value = found[setting].value if setting in found else None
            if value != expected:
                yield (
                    f"{topic.name}: expected {setting}={expected}, found {setting}={value}; alter the topic"
                    f" (kafka-configs --alter --topic {topic.name} --add-config {setting}={expected})"
                    " or correct schemas/topics.yaml"
                )


def apply_to(admin: AdminClient) -> tuple[list[str], list[str]]:
    """Create what is missing, then verify everything: (created names, differences). Raises KafkaException."""
    topics = declared()
    created = create_missing(admin, topics)
    return created, differences(admin, topics)


@contextmanager
def _broker(context: typer.Context) -> Iterator[AdminClient]:
    """An admin client; a broker that does not answer is one line and exit code 1."""
    settings = targets.chosen(context).broker()
    try:
        with kafka.Admin(settings, "millstream-topics") as admin:
            yield admin
    except (KafkaException, TimeoutError) as error:
        found = str(error) or "no answer"
        raise Failed(
            f"Kafka at {settings.bootstrap_servers}: expected a broker that answers, found {found}"
        ) from None


def _finish(different: Sequence[str]) -> None:
    for line in different:
        typer.echo(line, err=True)
    if different:
        raise typer.Exit(1)
    typer.echo(f"{len(declared())} topics as declared")


@app.command()
def apply(context: typer.Context) -> None:
    """Create the topics that are missing and verify the others."""
    with _broker(context) as admin:
        created, different = apply_to(admin)
    for name in created:
        typer.echo(f"created {name}")
    _finish(different)


@app.command()
def verify(context: typer.Context) -> None:
    """Verify every topic; change nothing."""
    with _broker(context) as admin:
        different = differences(admin, declared())
    _finish(different)


@app.command()
def acls(
    context: typer.Context,
    user: Users = None,
    applied: Annotated[bool, typer.Option("--apply", help="Make the broker hold everybody to it.")] = False,
) -> None:
    """Print what each process may do on the broker, and nothing else; `--apply` creates it as ACLs."""
    principals = access_lists.users(user or ())
    rules = declared_access()
    for rule in rules:
        typer.echo(access_lists.line(rule, principals))
    if applied:
        with _broker(context) as admin:
            access_lists.apply(admin, access_lists.bindings(rules, principals))
        typer.echo(f"the broker holds these {len(rules)} rules", err=True)

"""`millstream topics` on a real broker: created once, and every difference named with both values."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from services.cli import topics
from services.contracts.topics import Topic
from services.runtime import kafka
from tests import waiting
from tests.stack import Stack

pytestmark = pytest.mark.kafka


def test_every_kind_of_difference_is_named(stack: Stack) -> None:
    declared = {topic.name: topic for topic in topics.declared()}
    names = stack.fresh_topics({"job.requested": 6, "execution.events": 12, "definition.state": 12})
    ours = [_renamed(declared[base], name) for base, name in names.items()] + [
        _renamed(declared["job.requested"], "never.made")
    ]
    _alter(stack, names["execution.events"], "cleanup.policy", "compact")
    _alter(stack, names["definition.state"], "delete.retention.ms", "5")

    def four(admin: kafka.Admin) -> list[str] | None:
        # the broker serves an altered setting a moment after it confirmed it
        found = topics.differences(admin, ours)
        return found if len(found) == 4 else None

    with kafka.Admin(stack.kafka, "tests") as admin:
        lines = waiting.until(lambda: four(admin), 10, "four differences")
    said = {line.partition(":")[0]: line for line in lines}
    assert "expected 12 partitions, found 6" in said[names["job.requested"]]
    assert "expected cleanup.policy=delete, found cleanup.policy=compact" in said[names["execution.events"]]
    assert (
        "expected delete.retention.ms=2592000000, found delete.retention.ms=5"
        in said[names["definition.state"]]
    )
    assert "expected to exist" in said["never.made"]


def test_the_command_verifies(stack: Stack) -> None:
    for command in ("apply", "verify"):
        result = _command(command, stack.bootstrap)
        assert (result.returncode, result.stdout) == (0, f"{len(topics.declared())} topics as declared\n")


@pytest.mark.parametrize("command", ["apply", "verify"])
def test_the_command_says_that_the_broker_is_away(command: str) -> None:
    result = _command(command, "127.0.0.1:1")
    assert result.returncode == 1
    assert "expected a broker that answers" in result.stderr


def _command(name: str, bootstrap: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("MILLSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "services.cli", "topics", name],
        env={**own, "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def _renamed(topic: Topic, name: str) -> Topic:
    return dataclasses.replace(topic, name=name)


def _alter(stack: Stack, topic: str, setting: str, value: str) -> None:
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    with kafka.Admin(stack.kafka, "tests") as admin:
        admin.incremental_alter_configs([resource])[resource].result(30)

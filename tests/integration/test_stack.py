"""The servers of the test run themselves: real, shared, with something of one's own for every test."""

import pytest

from services.runtime import kafka
from tests.stack import Stack, transaction

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


def test_every_database_is_fresh(stack: Stack) -> None:
    first, second = stack.fresh_database(), stack.fresh_database()
    assert first != second
    for url in (first, second):
        with transaction(url) as cursor:
            cursor.execute("CREATE TABLE thing (id int)")


def test_fresh_topics_have_the_declared_settings_and_take_records(stack: Stack) -> None:
    names = stack.fresh_topics({"definition.state": 12, "my.own": 1})
    with kafka.Admin(stack.kafka, "tests") as admin:
        facts = kafka.topic_facts(admin, names.values())
    assert {name: facts[names[name]].partition_count for name in names} == {
        "definition.state": 12,
        "my.own": 1,
    }
    publisher = kafka.Publisher(stack.kafka, "tests")
    try:
        publisher.warm_up(names.values())
        delivered = publisher.publish(names["my.own"], b"key", b"value", [("tenant", b"t")]).result(30)
        assert (delivered.topic, delivered.partition, delivered.offset) == (names["my.own"], 0, 0)
    finally:
        assert publisher.close(10) == 0


def test_asking_for_a_missing_topic_does_not_create_it(stack: Stack) -> None:
    publisher = kafka.Publisher(stack.kafka, "tests")
    try:
        publisher.warm_up(["no.such"])
    finally:
        publisher.close(10)
    with kafka.Admin(stack.kafka, "tests") as admin:
        assert "no.such" not in kafka.topic_facts(admin, ["no.such"])

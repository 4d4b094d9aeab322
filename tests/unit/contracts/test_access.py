"""Who may do what on the broker, against what the processes do."""

import pytest

from services.api.projector import Projector
from services.cli import topics
from services.contracts import topics as contract
from services.contracts.access import Rule
from services.contracts.topics import TopicsError
from services.executor.manager import INPUTS, Manager
from services.executor.work.taking import GROUPS
from services.notifier.matcher import Matcher


def test_each_loop_may_read_its_inputs_and_join_its_group() -> None:
    rules = set(topics.declared_access())
    loops = {
        "api": (Projector.name, Projector.inputs),
        "executor-manager": (Manager.name, INPUTS),
        "notifier": (Matcher.name, Matcher.inputs),
    }
    for process, (name, inputs) in loops.items():
        assert {Rule(process, "READ", "topic", topic) for topic in inputs} <= rules
        assert Rule(process, "READ", "group", f"millstream-{name}") in rules
    for topic, group in GROUPS.items():
        assert {
            Rule("executor-worker", "READ", "topic", topic),
            Rule("executor-worker", "READ", "group", group),
        } <= rules


def test_facts_and_definitions_have_one_writer() -> None:
    writers = {(rule.name, rule.process) for rule in topics.declared_access() if rule.operation == "WRITE"}
    assert {process for name, process in writers if name == "execution.events"} == {"executor-manager"}
    assert {process for name, process in writers if name == "definition.state"} == {"api"}


@pytest.mark.parametrize("text", ["topics: []", "groups: {api: [a]}", "[]"])
def test_groups_are_declared_for_every_process(text: str) -> None:
    with pytest.raises(TopicsError, match="expected the groups of each of"):
        contract.parse_groups(text)

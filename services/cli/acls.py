"""`millstream topics acls`: what each process may do on the broker, printed and applied."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from services.cli.failure import Exit, Failed
from services.contracts.access import Rule
from services.contracts.topics import PROCESSES

TIMEOUT_S = 30.0
RESOURCES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
OPERATIONS = {"READ": AclOperation.READ, "WRITE": AclOperation.WRITE}

Users = Annotated[
    list[str] | None,
    typer.Option(
        "--user",
        metavar="PROCESS=NAME",
        help="The broker's name of a process' user; otherwise the process' own.",
    ),
]


def users(given: Sequence[str]) -> dict[str, str]:
    """Process -> principal. Raises Failed."""
    found = {process: process for process in PROCESSES}
    for entry in given:
        process, _, name = entry.partition("=")
        if process not in PROCESSES or not name:
            expected = f"PROCESS=NAME with one of {', '.join(sorted(PROCESSES))}"
            raise Failed(f"--user: expected {expected}, found {entry!r}", Exit.USAGE_OR_CANCELLED)
        found[process] = name
    return {process: f"User:{name}" for process, name in found.items()}


def line(rule: Rule, principals: Mapping[str, str]) -> str:
    """A rule as a person reads it."""
    return f"{principals[rule.process]} may {rule.operation} {rule.resource} {rule.name}"


def bindings(rules: Sequence[Rule], principals: Mapping[str, str]) -> list[AclBinding]:
    """The rules as the broker keeps them."""
    return [_binding(rule, principals[rule.process]) for rule in rules]


def apply(admin: AdminClient, wanted: Sequence[AclBinding]) -> None:
    """Create them; those that the broker has stay as they are. Raises KafkaException."""
    for future in admin.create_acls(list(wanted), request_timeout=TIMEOUT_S).values():
        future.result(TIMEOUT_S)


def _binding(rule: Rule, principal: str) -> AclBinding:
    return AclBinding(
        RESOURCES[rule.resource],
        rule.name,
        ResourcePatternType.LITERAL,
        principal,
        "*",
        OPERATIONS[rule.operation],
        AclPermissionType.ALLOW,
    )

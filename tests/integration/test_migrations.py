"""Migrations: idempotent, safe to start twice at once, confined to the service's own schema."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from services.runtime.migrations import SERVICES, migrate
from tests.stack import Stack, transaction

pytestmark = pytest.mark.postgres
SCHEMAS = sorted(path.parent.parent.name for path in SERVICES.glob("*/migrations/versions"))


@pytest.mark.parametrize("service", SCHEMAS)
def test_two_at_once_then_again(stack: Stack, service: str) -> None:
    url = stack.fresh_database()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(migrate, url, service) for _ in range(2)]:
            done.result(60)
    migrate(url, service)
    assert _tables(url) == {service}


def _tables(url: str) -> set[str]:
    """The schemas in which there are tables."""
    with transaction(url) as cursor:
        cursor.execute(
            "SELECT DISTINCT schemaname FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        return {row[0] for row in cursor.fetchall()}

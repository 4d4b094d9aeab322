"""Fixtures of the manager's tests."""

import pytest

from tests.service.executor.house import Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()

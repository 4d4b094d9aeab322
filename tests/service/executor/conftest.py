"""Fixtures of the manager's tests."""

import pytest

from services import jobs
from tests.service.executor.house import Desk
from tests.service.executor.pipelines import Pipelines, Runner


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def runner(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A desk whose pipelines are planned by the test."""
    pipelines = Pipelines()
    monkeypatch.setattr(jobs, "JOB_TYPES", {**jobs.JOB_TYPES, "pipeline": pipelines})
    return Runner(desk, pipelines)

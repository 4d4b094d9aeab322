"""Fixtures for every test: the real broker and database of the test run."""

import os

import pytest
from hypothesis import settings

from services.cli.dev.folder import MissingTool
from tests import stack as stacks

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_SESSION = pytest.StashKey[stacks.Session]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The process that controls the run makes its folder; xdist workers find it in the environment."""
    if hasattr(config, "workerinput"):
        return
    session = config.stash[_SESSION] = stacks.Session()
    if os.geteuid() == 0 and config.option.basetemp is None:
        # As root the database runs under another account, and every pytest that starts on the machine
        # takes the way into pytest's usual folder from that account.
        config.option.basetemp = session.folder / "tmp"


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what any worker started."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.end()


@pytest.fixture(scope="session")
def stack() -> stacks.Stack:
    """Real Kafka (with the declared topics) and PostgreSQL, shared by the whole run."""
    try:
        return stacks.shared()
    except MissingTool as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no local stack: {error}")

"""The bodies that the loop's promises are tested on."""

from collections.abc import Iterator

import pytest

from tests.conformance.worlds import MemoryWorld, RealWorld, World

REAL = [pytest.mark.kafka, pytest.mark.postgres]
LONG = [
    *REAL,
    pytest.mark.faults,
]  # stories and fault runs use this protocol anyway, through `millstream dev`


@pytest.fixture(params=["memory", pytest.param("classic", marks=REAL), pytest.param("consumer", marks=LONG)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A place for members; everything in it is the test's own."""
    if request.param == "memory":
        yield MemoryWorld()
        return
    real = RealWorld(request.getfixturevalue("stack"), request.param)
    yield real
    real.close()

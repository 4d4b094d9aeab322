"""What the api says of itself, for those who hold a key."""

from pathlib import Path

import pytest
import yaml

from services.runtime import schemas
from tests.serving import Api

pytestmark = pytest.mark.postgres


def test_the_topics_are_described_as_they_are_checked_in(api: Api) -> None:
    checked_in = Path(schemas.FOLDER / "asyncapi.yaml").read_text(encoding="utf-8")
    with api.client(api.key("viewer")) as client:
        text = client.get("/asyncapi.yaml")
        assert (text.text, text.headers["content-type"]) == (checked_in, "application/yaml")
        assert client.get("/asyncapi.json").json() == yaml.safe_load(checked_in)
        assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


@pytest.mark.parametrize("path", ["/asyncapi.yaml", "/asyncapi.json", "/openapi.json"])
def test_a_description_asks_for_a_key(api: Api, path: str) -> None:
    with api.client("") as client:
        assert client.get(path).status_code == 401

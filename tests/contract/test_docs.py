"""docs/events.md and schemas/README.md against the code."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.contracts import envelope, public
from services.contracts.events import ALIASES, TYPES, Event, Facts
from services.runtime import schemas
from services.runtime.processor.letters import dead_letter
from services.runtime.processor.types import Input, Poison
from tests.claims import in_memory
from tests.contract.catalogue import FOLDER, example, manifest

ROOT = FOLDER.parent
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
FACTS = Facts.__struct_fields__


@cache
def sections() -> Mapping[str, str]:
    """Heading of the second level -> text below it."""
    parts = re.split(
        r"^## (.+)$", re.sub(r"^# .+$", "## (part)", PAGE, flags=re.MULTILINE), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a table, backticks removed."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def block(text: str) -> Any:
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found, "expected a JSON example"
    return json.loads(found.group(1))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def first_example(name: str) -> Event:
    line = next(line for line in manifest() if line.record is TYPES[name])
    record = example(line, line.examples[0])
    assert isinstance(record, Facts)
    return record


def test_every_event_has_its_section_and_no_other() -> None:
    headings = re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE)
    assert headings == list(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_an_event_is_described_as_it_is(name: str) -> None:
    text = sections()[f"`{name}`"]
    own = [field for field in TYPES[name].__struct_fields__ if field not in FACTS]
    assert [row[0] for row in rows(text)] == own
    assert block(text) == as_json(public.view(first_example(name)))
    aliases = [alias for alias, types in ALIASES.items() if name in types]
    said = re.search(r"^Listeners' names: (.+)$", text, re.MULTILINE)
    assert said and said.group(1) == (", ".join(f"`{alias}`" for alias in aliases) or "none")


def test_the_common_fields_are_those_of_every_event() -> None:
    assert [row[0] for row in rows(sections()["What every event carries"])] == [*FACTS]


def test_the_names_for_listeners() -> None:
    documented = {
        row[0]: set(re.findall(r"[a-z_.]+", row[1])) for row in rows(sections()["Names for listeners"])
    }
    assert documented == {alias: set(types) for alias, types in ALIASES.items()}


def test_the_headers() -> None:
    event = first_example("execution.completed")
    sent = envelope.event(event, schemas.codec().encode(event), b"\0" * 32)
    more = dead_letter(
        "api", Input("execution.events", 0, 0, sent.key, bytes(300_000)), Poison("undecodable", "")
    )
    more = in_memory().fitted(more)
    documented = [row[0] for row in rows(sections()["Headers"])]
    assert documented == [name for name, _ in (*sent.headers, *more.headers)]


def test_the_webhook_body() -> None:
    text = PAGE.partition("# Webhooks")[2]
    assert block(text) == as_json(public.cloud_event(first_example("execution.completed")))


def test_the_schema_page_names_every_record() -> None:
    page = (ROOT / "schemas" / "README.md").read_text(encoding="utf-8")
    documented = {row[0]: row[1:4] for row in rows(page) if row[0].isdigit()}
    assert documented == {
        str(line.id): [line.name.rpartition(".")[2], line.file, line.topic] for line in manifest()
    }


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "schemas" / "README.md"]
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing, f"{page.name}: {missing}"

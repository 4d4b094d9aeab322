"""docs/pipelines.md: every definition on the page is planned with its values, every kind and key is named."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services import jobs
from services.cli import pipeline as commands
from services.jobs import documents, pipeline
from services.jobs.pipeline import calls, kinds, load, values
from services.jobs.pipeline.kinds import approval
from tests import pipelining

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```\n```json\n(.*?)```", PAGE, re.DOTALL)
FLIGHTS = documents.parse_yaml((ROOT / "examples" / "flights-report.yaml").read_bytes())


@pytest.mark.parametrize(("definition", "given"), EXAMPLES)
def test_an_example_of_the_page_is_planned_with_its_values(definition: str, given: str) -> None:
    body = documents.parse_yaml(definition.encode())
    pinned = {id: {"revision": 1, "body": FLIGHTS} for id in pipeline.datasets_named(body)}
    planned = jobs.plan(pipelining.request(pipeline.with_datasets(body, pinned), json.loads(given)))
    assert planned


def test_every_definition_of_the_page_has_its_values() -> None:
    assert len(EXAMPLES) == PAGE.count("```yaml") > 3


@pytest.mark.parametrize(
    "name",
    [*kinds.KINDS, *load.BODY_KEYS, *load.STEP_KEYS, *calls.KEYS, *approval.APPROVAL.keys, *values.KEYS],
)
def test_every_key_and_kind_is_named(name: str) -> None:
    assert re.search(rf"`[^`]*\b{re.escape(name)}\b[^`]*`", PAGE), f"docs/pipelines.md does not name {name}"


def test_the_kind_it_shows_is_the_one_that_runs() -> None:
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    file = ROOT / "services" / "jobs" / "pipeline" / "kinds" / "transform.py"
    assert shown in file.read_text(encoding="utf-8")


def test_the_order_that_check_prints_is_the_pages() -> None:
    definition = next(text for text, _ in EXAMPLES if "step_name: Mend" in text)
    ran = CliRunner().invoke(commands.app, ["check", "-"], input=definition)
    table = ran.output[ran.output.index("STEP") :]
    assert f"of this one:\n```\n{table}```" in PAGE

"""The README's commands, taken from it and run as they stand."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from examples.demo.story import DATASET, DEFINITION
from tests.local import Local
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def bash(local: Local, folder: Path, text: str) -> str:
    """Run a block in a shell; the data folder and the address are those of this run."""
    text = text.replace(".millstream/", f"{local.folder.root}/").replace(
        "http://127.0.0.1:8080", local.state["api_url"]
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_submit_and_download_by_curl(local: Local, tmp_path: Path) -> None:
    submit, download = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    with httpx.Client(base_url=local.state["api_url"], trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {local.api_key}"
        headers = {"Content-Type": "application/yaml"}
        assert client.put(
            f"/v1/datasets/{DATASET}", content=DEFINITION.read_bytes(), headers=headers
        ).is_success
        answer = bash(local, tmp_path, submit)
        id = json.loads(answer)["execution_id"]
        assert bash(local, tmp_path, submit) == answer  # the same Idempotency-Key

        def completed() -> bool:
            status = client.get(f"/v1/executions/{id}").json()["status"]
            assert status != "failed"
            return bool(status == "completed")

        until(completed, 60, "the execution of the README to complete")
    variables = submit.splitlines()[0]
    bash(local, tmp_path, f"{variables}\n" + download.replace("<the execution_id of the answer>", id))
    with (tmp_path / "reports-AA.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32_729
    assert {row["carrier"] for row in rows} == {"AA"}


def test_the_description_that_the_readme_names_is_served(local: Local) -> None:
    assert "/openapi.json`" in README
    key = Path(local.state["api_key_file"]).read_text(encoding="utf-8").strip()
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.get(local.state["api_url"] + "/openapi.json", headers=headers, trust_env=False)
    assert "/v1/executions" in answer.json()["paths"]


def test_the_sample_of_the_data_exhaust_api_is_posted(local: Local) -> None:
    block = next(
        text for text in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "submit.json" in text
    )
    load, submit, listing = [line[2:] for line in block.replace("\\\n", "").splitlines()]
    root = Path(__file__).parents[2]
    load = load.replace(".venv/bin/python", sys.executable) + f" --data {local.folder.root}"
    variables = f"API={local.state['api_url']} KEY={local.api_key}\n"
    bash(local, root, load)
    id = json.loads(bash(local, root, variables + submit))["result"]["request_id"]
    jobs = json.loads(bash(local, root, variables + listing))["result"]["jobs"]
    assert [job["request_id"] for job in jobs] == [id]

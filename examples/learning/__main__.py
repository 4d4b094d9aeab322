"""`python -m examples.learning [--data .millstream]`: load the tables and define the reports.

Into the source database of a running `millstream dev`; then submit.json can be posted as it is.
"""

import argparse
import json
from pathlib import Path

from examples.demo.client import Client
from examples.learning.load import load

REPORTS = ("assessment-score-report", "assessment-report", "course-report")
FOLDER = Path(__file__).parent


def main() -> None:
    """Say what was done, line by line."""
    parser = argparse.ArgumentParser(prog="python -m examples.learning", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".millstream"), help="the folder of millstream dev")
    state = json.loads((parser.parse_args().data / "state.json").read_text(encoding="utf-8"))
    for table, count in load(state["source_url"]).items():
        print(f"public.{table}: {count} rows")
    client = Client(state["api_url"], Path(state["api_key_file"]).read_text(encoding="utf-8").strip())
    for report in REPORTS:
        stored = client.put_dataset(report, (FOLDER / f"{report}.yaml").read_bytes())
        print(f"dataset {report}: revision {stored['revision']}")
    client.close()


if __name__ == "__main__":
    main()

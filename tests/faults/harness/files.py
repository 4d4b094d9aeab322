"""Files: what links give, what the store holds, and what psql copies."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from services.contracts.events import FilePublished
from services.runtime import blobs
from services.runtime.container import Files
from services.runtime.setting_values import parse_keys
from tests.faults.harness import parcels
from tests.faults.harness.history import Asked
from tests.faults.harness.topic import Story

MANIFEST = "manifest.json"


def check_downloads(
    asked: Asked, view: Mapping[str, Any], story: Story, address: tuple[str, str], source_url: str
) -> list[str]:
    """Every file of one completed export, by its link, against psql's COPY; what is wrong."""
    listed = {file["name"]: file for file in view["files"]}
    published = {event.file.name for event in story.events if isinstance(event, FilePublished)}
    wanted = {f"reports-{depot}.csv" for depot in asked.depots} | ({MANIFEST} if asked.depots else set())
    if not wanted == listed.keys() == published:
        return [f"{asked.key}: expected files {wanted}, listed {[*listed]}, published {published}"]
    faults, hashes = [], {}
    for name, file in listed.items():
        url = file["url"] if file["url"].startswith("http") else address[0] + file["url"]
        answer = httpx.get(url, timeout=30, trust_env=False)
        hashes[name] = hashlib.sha256(answer.content).hexdigest()
        if answer.status_code != 200 or hashes[name] != file["sha256"]:
            faults.append(f"{asked.key} {name}: {answer.status_code}, {hashes[name]}, told {file['sha256']}")
        if name == MANIFEST:
            manifest = answer.json()
        elif hashes[name] != parcels.copied(source_url, file["batch"], asked.light):
            faults.append(f"{asked.key} {name}: differs from psql's COPY")
    if listed:
        told = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
        if told != {name: digest for name, digest in hashes.items() if name != MANIFEST}:
            faults.append(f"{asked.key}: the manifest tells other hashes")
    return faults


def check_store(folder: Path, stories: Mapping[str, Story], source_url: str) -> tuple[list[str], int]:
    """What the store of a data folder shows: (faults, leftovers of dead takes).

    No visible file is partial, named or not.
    """
    named = {
        event.file.key
        for story in stories.values()
        for event in story.events
        if isinstance(event, FilePublished)
    }
    store = blobs.connect(f"file://{folder / 'blobs'}")
    keys = parse_keys((folder / "secrets" / "file-keys").read_text())
    visible = {info.key for info in store.list("executions") if "/log/" not in info.key}
    faults = [f"{key}: named by an event, not in the store" for key in named - visible]
    whole = {
        depot: {parcels.copied(source_url, depot, light) for light in (False, True)}
        for depot in parcels.DEPOTS
    }
    for key in visible:
        content = b"".join(Files(store, keys).open(key.split("/")[1], key).read())
        name = key.rpartition("/")[2]
        if name == MANIFEST:
            json.loads(content)
        elif hashlib.sha256(content).hexdigest() not in whole[name.removeprefix("reports-")[:-4]]:
            faults.append(f"{key}: a visible file that is not what psql copies")
    return faults, len(visible - named)

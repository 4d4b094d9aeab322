"""One data folder with everything around it: receiver, history, watch; and the checks over all of it."""

import base64
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from confluent_kafka import KafkaException

from services.cli.dev.folder import Folder, free_port
from services.cli.dev.parts import PORTS
from services.runtime import entropy
from tests import canary, waiting
from tests.faults.harness import checks, files, parcels
from tests.faults.harness.history import History, Secrets
from tests.faults.harness.receiver import Receiver
from tests.faults.harness.system import System
from tests.faults.harness.topic import Stories, Story
from tests.faults.harness.watch import Watch

SETTLE_TIMEOUT_S = 300.0
SUBMITTED_TIMEOUT_S = 3_600.0
LANES = {"MILLSTREAM_WORKER__LONG_LANES": "8"}
"""Enough that work which is asked for again within the bound does not wait behind long exports."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the checks of a round found."""

    faults: list[str]
    stories: Mapping[str, Story]
    recoveries: list[float]
    leftovers: int
    duplicates: int

    @property
    def ends(self) -> dict[str, int]:
        """Terminal event -> executions."""
        ends = [story.end or "none" for story in self.stories.values()]
        return {end: ends.count(end) for end in sorted({*ends})}


@dataclass(frozen=True, slots=True)
class World:
    """Use `world(...)`."""

    system: System
    watch: Watch
    receiver: Receiver
    history: History
    rng: random.Random

    def prepare(self, rows: int) -> None:
        """The source table and its dataset."""
        parcels.load(self.system.state["source_url"], rows)
        self.system.put_dataset(parcels.DATASET_ID, parcels.DATASET)
        self.system.put_dataset(parcels.REGIONAL_ID, parcels.REGIONAL)
        self.system.put_dataset(parcels.SLOW_ID, parcels.SLOW)

    def leaks(self, *folders: Path) -> list[str]:
        """Where a secret of the history was found; `folders` hold `kafka` and `postgres` of their own."""
        assert any(call.canary == self.history.secrets.canary for call in self.receiver.calls)
        secrets, state, key = self.history.secrets, self.system.state, self.system.address()[1]
        places = [
            [("output of dev", "".join(self.system.outputs).encode())],
            canary.places(state, key, self.history.accepted()),
            *(canary.on_disk(folder) for folder in (Path(state["data_folder"]), *folders)),
        ]
        named = (secrets.canary, secrets.signing, secrets.signing.removeprefix("whsec_"))
        return canary.search(named, chain.from_iterable(places))

    @staticmethod
    def wait(seconds: float) -> None:
        """Let time pass: the instants of faults are random, no fact is waited for."""
        threading.Event().wait(seconds)

    def submit_many(self, count: int, spacing_s: float, patient: float = 0.9) -> None:
        """Ask `count` times at random instants; most callers repeat until accepted, the others do not."""
        rng = random.Random(self.rng.random())
        for _ in range(count):
            self.wait(rng.random() * 2 * spacing_s)
            self.history.submit(patient=rng.random() < patient)

    @contextmanager
    def submitting(self, count: int, spacing_s: float) -> Iterator[threading.Thread]:
        """`submit_many` in a thread; joined at the end, its failure is ours."""
        problems: list[BaseException] = []

        def run() -> None:
            try:
                self.submit_many(count, spacing_s)
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(target=run, name="submitting")
        thread.start()
        try:
            yield thread
        finally:
            waiting.joined(thread, SUBMITTED_TIMEOUT_S)
        if problems:
            raise problems[0]

    def settle(self) -> None:
        """Ask again for what we know nothing of, then wait until everything has ended."""
        for asked in self.history.known().values():
            if asked.told == "unknown" and self.rng.random() < 0.5:
                self.history.once(asked)
        with Stories(self.system.state["kafka_bootstrap"]) as stories:

            def left() -> set[str]:
                try:
                    stories.read_on()
                except KafkaException as error:  # the broker has only just come back
                    return {str(error)}
                return stories.unfinished({*self.history.accepted()})

            try:
                waiting.until(lambda: not left(), SETTLE_TIMEOUT_S, "every execution to end")
            except AssertionError:
                pass  # the checks name those that did not

    def check(self, first: int = 0) -> Found:
        """Every invariant, over the whole log read from its start; the API and its links are asked only
        about requests from number `first` on, because a thousand downloads take minutes."""
        state = self.system.state
        source = state["source_url"]
        with Stories(state["kafka_bootstrap"]) as reader:
            reader.read_on()
            stories = reader.by_id
        faults = checks.check_stories(stories, self.history)
        faults += checks.check_api(stories, self.history, first, self.system.address(), source)
        faults += checks.check_webhooks(stories, self.history, self.receiver)
        recoveries, late = checks.recoveries(stories, self.watch)
        damaged, leftovers = files.check_store(Path(state["data_folder"]), stories, source)
        return Found(faults + late + damaged, stories, recoveries, leftovers, self.receiver.duplicates())


@contextmanager
def world(folder: Path, seed: int, environ: Mapping[str, str] | None = None) -> Iterator[World]:
    """A folder without a running system yet; whatever runs at the end is stopped."""
    rng = random.Random(seed)
    signing = f"whsec_{base64.b64encode(entropy.token(32)).decode()}"
    choose_ports(folder)
    secrets = Secrets(f"canary{entropy.token(16).hex()}", signing)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(signing))
        watch = stack.enter_context(Watch(folder))
        system = System(folder, watch, LANES | dict(environ or {}))
        stack.callback(system.stop)
        history = History(system.address, receiver.url, secrets, random.Random(seed + 1), f"s{seed}")
        yield World(system, watch, receiver, history, rng)


def choose_ports(folder: Path) -> None:
    """Ports of its own: the defaults belong to whoever else runs a stack here, and we are often down."""
    taken: set[int] = set()
    own = Folder(folder)
    own.create()
    own.record({"ports": {name: free_port(0, taken) for name in PORTS}})

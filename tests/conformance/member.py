"""One member of a real world as a process of its own, to be killed or frozen.

Run it as `python -m tests.conformance.member`.
WORLD is JSON: name, inputs, output. BOOTSTRAP and DATABASE are addresses. CRASH is `<point>:<mark file>` or
nothing.
"""

import json
import os
from pathlib import Path

from services.runtime import crash, settings, signals
from services.runtime.processor.kafka import KafkaLog
from services.runtime.processor.loop import Limits, Processor
from services.runtime.processor.postgres import PostgresStore
from tests.claims import in_memory
from tests.conformance.counting import Counting
from tests.conformance.worlds import writer


def main() -> None:
    """Run until SIGTERM or the crash point."""
    stop = signals.install()
    name, inputs, output = json.loads(os.environ["WORLD"])
    point, _, mark = os.environ.get("CRASH", "").partition(":")
    if point:
        crash.arm(settings.Crash(point=point, mark=Path(mark)))
    store = PostgresStore(os.environ["DATABASE"], name, writer(name))
    broker = {"bootstrap_servers": os.environ["BOOTSTRAP"], "group_protocol": os.environ["PROTOCOL"]}
    log = KafkaLog(settings.Kafka.model_validate(broker), name, f"{name}-{os.getpid()}")
    handler = Counting(tuple(inputs), output, name)
    Processor(handler, store, log, in_memory(), (output,), Limits(idle_s=0.02)).run(stop)


if __name__ == "__main__":
    main()

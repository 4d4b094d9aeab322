"""`python -m services.executor manager | worker | migrate`."""

import os
import sys

from services.executor.manager import INPUTS, OUTPUTS, Manager
from services.executor.settings import ManagerSettings, MigrateSettings, WorkerSettings
from services.runtime import crash, migrations, settings, signals, telemetry
from services.runtime.health import HealthServer
from services.runtime.processor import run
from services.runtime.schemas import codec

USAGE = "usage: python -m services.executor manager|worker|migrate"

log = telemetry.get_logger()


def run_role(arguments: list[str]) -> int:
    """Run one role; 0 after a drain, 2 for wrong usage or settings."""
    roles = {"manager": manage, "worker": work, "migrate": migrate}
    if len(arguments) != 1 or arguments[0] not in roles:
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        return roles[arguments[0]]()
    except settings.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def manage() -> int:
    """The StepExecutionManager."""
    chosen = settings.load(ManagerSettings, os.environ)
    telemetry.configure("executor-manager")
    crash.arm(chosen.crash)
    log.info("started", settings=settings.masked(chosen), inputs=INPUTS)
    stop = signals.install()
    loop = run.processor(Manager(codec()), chosen.kafka, chosen.database, outputs=OUTPUTS)
    health = HealthServer(chosen.health.host, chosen.health.port, loop.live, loop.ready)
    health.start()
    loop.run(stop)
    health.close()
    log.info("stopped")
    return 0


def work() -> int:
    """A worker."""
    from services.executor.worker import main  # noqa: PLC0415 a manager never loads the formats' libraries

    chosen = settings.load(WorkerSettings, os.environ)
    telemetry.configure("executor-worker")
    crash.arm(chosen.crash)
    log.info("started", settings=settings.masked(chosen))
    return main(chosen)


def migrate() -> int:
    """Bring the executor's schema up to date."""
    chosen = settings.load(MigrateSettings, os.environ)
    migrations.migrate(chosen.database.url.get_secret_value(), "executor")
    return 0


if __name__ == "__main__":
    sys.exit(run_role(sys.argv[1:]))

"""`python -m services.executor manager | worker | migrate`.

Each role imports what it alone uses: a worker holds no manager in memory, and a manager no formats.
"""

import os
import sys

from services.executor.settings import ManagerSettings, MigrateSettings, WorkerSettings
from services.runtime import crash, settings, signals, telemetry
from services.runtime.health import HealthServer

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
    from services.executor import permits  # noqa: PLC0415
    from services.executor.core.admission import Windows  # noqa: PLC0415
    from services.executor.core.budget import Budget  # noqa: PLC0415
    from services.executor.manager import INPUTS, OUTPUTS, Manager  # noqa: PLC0415
    from services.runtime.processor import run  # noqa: PLC0415
    from services.runtime.schemas import codec  # noqa: PLC0415

    chosen = settings.load(ManagerSettings, os.environ)
    telemetry.configure("executor-manager")
    crash.arm(chosen.crash)
    log.info("started", settings=settings.masked(chosen), inputs=INPUTS)
    stop = signals.install()
    dispatch = chosen.dispatch
    windows = Windows(
        dispatch.short_window, dispatch.long_window, dispatch.call_window, dispatch.calls_per_tenant
    )
    manager = Manager(codec(), windows, Budget(**chosen.budget.model_dump()))
    loop = run.processor(
        manager,
        chosen.kafka,
        chosen.database,
        chosen.loop,
        chosen.blobs,
        outputs=OUTPUTS,
        write_rows=permits.write,
    )
    health = HealthServer(chosen.health.host, chosen.health.port, loop.live, loop.ready)
    health.start()
    loop.run(stop)
    health.close()
    log.info("stopped")
    return 0


def work() -> int:
    """A worker."""
    from services.executor.worker import main  # noqa: PLC0415
    from services.runtime import allocator  # noqa: PLC0415

    allocator.share_arenas()
    chosen = settings.load(WorkerSettings, os.environ)
    telemetry.configure("executor-worker")
    crash.arm(chosen.crash)
    log.info("started", settings=settings.masked(chosen))
    return main(chosen)


def migrate() -> int:
    """Bring the executor's schema up to date."""
    from services.runtime import migrations  # noqa: PLC0415

    chosen = settings.load(MigrateSettings, os.environ)
    migrations.migrate(chosen.database.url.get_secret_value(), "executor")
    return 0


if __name__ == "__main__":
    sys.exit(run_role(sys.argv[1:]))

"""The settings of the executor's two processes."""

from pydantic import BaseModel, ConfigDict

from services.runtime.settings import (
    Blobs,
    Budget,
    Crash,
    Database,
    Dispatch,
    Files,
    Health,
    Kafka,
    Loop,
    Outbound,
    Secrets,
    Sources,
    SourceTenants,
    Worker,
)


class ManagerSettings(BaseModel):
    """What the manager needs."""

    model_config = ConfigDict(frozen=True)
    kafka: Kafka
    database: Database
    loop: Loop
    budget: Budget
    blobs: Blobs
    dispatch: Dispatch
    health: Health
    crash: Crash


class WorkerSettings(BaseModel):
    """What a worker needs; it has no database of ours."""

    model_config = ConfigDict(frozen=True)
    kafka: Kafka
    blobs: Blobs
    files: Files
    sources: Sources
    source_tenants: SourceTenants
    secrets: Secrets
    outbound: Outbound
    worker: Worker
    health: Health
    crash: Crash


class MigrateSettings(BaseModel):
    """What the migration needs."""

    model_config = ConfigDict(frozen=True)
    database: Database

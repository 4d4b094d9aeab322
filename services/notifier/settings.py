"""Which settings the notifier reads."""

from pydantic import BaseModel, ConfigDict

from services.runtime.settings import (
    Blobs,
    Crash,
    Database,
    Deliveries,
    Health,
    Kafka,
    Loop,
    Outbound,
    Sealing,
)


class Settings(BaseModel):
    """The sections of the notifier process."""

    model_config = ConfigDict(frozen=True)
    kafka: Kafka
    database: Database
    loop: Loop
    blobs: Blobs
    sealing: Sealing
    outbound: Outbound
    deliveries: Deliveries
    health: Health
    crash: Crash


class MigrateSettings(BaseModel):
    """What `migrate` needs."""

    model_config = ConfigDict(frozen=True)
    database: Database

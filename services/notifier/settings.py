"""Which settings the notifier reads."""

from pydantic import BaseModel, ConfigDict

from services.runtime.settings import Blobs, Crash, Database, Health, Kafka, Loop, Outbound, Sealing


class Settings(BaseModel):
    """The sections of the notifier process."""

    model_config = ConfigDict(frozen=True)
    kafka: Kafka
    database: Database
    loop: Loop
    blobs: Blobs
    sealing: Sealing
    outbound: Outbound
    health: Health
    crash: Crash


class MigrateSettings(BaseModel):
    """What `migrate` needs."""

    model_config = ConfigDict(frozen=True)
    database: Database

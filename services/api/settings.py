"""Which settings api reads."""

from pydantic import BaseModel, ConfigDict

from services.runtime.settings import (
    Api,
    Blobs,
    Crash,
    Database,
    DatabaseOwner,
    Files,
    Health,
    Kafka,
    Links,
    Loop,
    Quota,
    Sealing,
    SourceTenants,
)


class Settings(BaseModel):
    """The sections of the api process."""

    model_config = ConfigDict(frozen=True)
    api: Api
    blobs: Blobs
    crash: Crash
    database: Database
    files: Files
    health: Health
    kafka: Kafka
    links: Links
    loop: Loop
    quota: Quota
    sealing: Sealing
    source_tenants: SourceTenants


class Migrate(BaseModel):
    """What `migrate` needs: the role that serves, and the one that owns the tables, when they are two."""

    model_config = ConfigDict(frozen=True)
    database: Database
    database_owner: DatabaseOwner


class DatabaseOnly(BaseModel):
    """What `create-key` needs."""

    model_config = ConfigDict(frozen=True)
    database: Database

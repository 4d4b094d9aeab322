"""Which settings api reads."""

from pydantic import BaseModel, ConfigDict

from services.runtime.settings import Api, Blobs, Crash, Database, Files, Kafka, Links, Sealing


class Settings(BaseModel):
    """The sections of the api process."""

    model_config = ConfigDict(frozen=True)
    api: Api
    blobs: Blobs
    crash: Crash
    database: Database
    files: Files
    kafka: Kafka
    links: Links
    sealing: Sealing


class DatabaseOnly(BaseModel):
    """What `migrate` and `create-key` need."""

    model_config = ConfigDict(frozen=True)
    database: Database

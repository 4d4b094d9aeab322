"""The forms of single settings: what their text must be, and what it stands for."""

import base64
import binascii
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from services.contracts.names import TENANT

KEY_BYTES = 32


def checked(check: Callable[[str], object]) -> AfterValidator:
    """Check a secret's text; `check` raises ValueError, whose text holds none of it."""

    def run(secret: SecretStr) -> SecretStr:
        check(secret.get_secret_value())
        return secret

    return AfterValidator(run)


def parse_keys(text: str) -> dict[str, bytes]:
    """`kid:base64(32 bytes)[,...]` as an ordered map of key id to key; the first one seals or signs.

    Raises ValueError, whose text never holds key material.
    """
    keys: dict[str, bytes] = {}
    for entry in text.split(","):
        key_id, _, encoded = entry.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", key_id) or len(key) != KEY_BYTES or key_id in keys:
            raise ValueError("a key id is malformed or used twice, or a key is not 32 bytes")
        keys[key_id] = key
    return keys


def parse_secrets(text: str) -> dict[str, dict[str, str]]:
    """`{"tenant": {"name": "value"}}` as it says. Raises ValueError, whose text holds no value."""
    try:
        found = msgspec.json.decode(text, type=dict[str, dict[str, str]])
    except msgspec.MsgspecError:
        raise ValueError("not JSON of this form") from None
    for tenant, secrets in found.items():
        if not TENANT.fullmatch(tenant):
            raise ValueError("a tenant's name is malformed")
        for name, value in secrets.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", name) or not 4 <= len(value) <= 4096:
                raise ValueError("a secret's name is malformed, or its value has not 4 to 4096 characters")
    return found


def check_database_url(text: str) -> str:
    """A URL of PostgreSQL with a database. Raises ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise ValueError("not a PostgreSQL URL with a database name")
    return text


def check_bootstrap(text: str) -> str:
    """A list of brokers. Raises ValueError."""
    if not all(re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:,]+):\d{1,5}", part) for part in text.split(",")):
        raise ValueError("not host:port[,...]")
    return text


def check_blob_url(text: str) -> str:
    """The URL of a blob store. Raises ValueError."""
    parts = urlsplit(text)
    is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    if not is_folder and not (parts.scheme == "s3" and parts.netloc):
        raise ValueError("not file:///folder or s3://bucket/...")
    return text


def check_readable(path: Path | None) -> Path | None:
    """A file that this process may read, if one is named. Raises ValueError."""
    if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError("not a readable file")
    return path


def networks(value: object) -> object:
    """`network[,...]` as networks; what is no text is handed on. Raises ValueError."""
    if not isinstance(value, str):
        return value
    return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())


def from_json(value: object) -> object:
    """Text of JSON as what it says. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.MsgspecError:
        raise ValueError("not JSON") from None


def tenant_names(value: object) -> object:
    """`tenant[,...]` or `*` as names; what is no text is handed on. Raises ValueError."""
    if not isinstance(value, str):
        return value
    names = tuple(part.strip() for part in value.split(","))
    if names != ("*",) and not all(TENANT.fullmatch(name) for name in names):
        raise ValueError("not tenant[,...] or *")
    return names


Keys = Annotated[
    SecretStr, checked(parse_keys), Field(description="kid:base64(32 bytes)[,kid2:...], ids unique")
]
DatabaseUrl = Annotated[
    SecretStr,
    checked(check_database_url),
    Field(description="postgresql://role:password@host:port/database"),
]
Port = Annotated[int, Field(ge=1, le=65535, description="a port number, 1 to 65535")]
StepCount = Annotated[int, Field(ge=1, le=10_000, description="a number of steps, 1 to 10000")]
CallCount = Annotated[int, Field(ge=1, le=2_000, description="a number of calls, 1 to 2000")]
Host = Annotated[str, Field(min_length=1, description="a host name or address to listen on")]
PemFile = Annotated[
    Path | None, AfterValidator(check_readable), Field(description="the path of a readable PEM file")
]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    BeforeValidator(networks),
    Field(description="networks as CIDR[,...], for example 127.0.0.0/8"),
]
AtOnce = Annotated[int, Field(ge=0, le=100_000, description="a number, 0 to 100000; 0 is no limit")]

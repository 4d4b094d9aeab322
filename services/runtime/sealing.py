"""Secrets at rest: AES-256-GCM, bound to tenant and field, named by key id.

A sealed text is `sealed:v1:<key id>:<base64url(nonce + ciphertext + tag)>`. The first key seals; every key
opens, so a key is retired by putting a new one before it. A sealed text moved to another tenant or field
does not open.
"""

import base64
import binascii
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.contracts.names import SEALED_PREFIX, is_sealed
from services.runtime import entropy

NONCE_BYTES = 12
TAG_BYTES = 16

CALLBACK_SECRET = "callback.secret"
"""The field under which a callback's signing secret is sealed."""


def callback_header(name: str) -> str:
    """The field under which the value of a callback's header is sealed."""
    return f"callback.headers.{name.lower()}"


def request_header(name: str) -> str:
    """The field under which the value of a request's own header (S0 0.19) is sealed."""
    return f"request.headers.{name.lower()}"


class SealingError(Exception):
    """A text cannot be opened; trying again does not help. The message never holds the text."""


class UnknownKey(SealingError):
    """The text was sealed with a key that this process does not have."""


class Tampered(SealingError):
    """The text is not sealed, is damaged, or belongs to another tenant or field."""


class Sealer:
    """Seals and opens with a fixed set of keys; safe from any thread."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys`: key id -> 32 bytes, as parsed from MILLSTREAM_SEALING__KEYS; the first one seals."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = next(iter(keys))

    def seal(self, plain: str, tenant: str, field: str) -> str:
        """The sealed form of `plain`; the same text sealed twice looks different."""
        nonce = entropy.token(NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, plain.encode(), _context(tenant, field))
        return f"{SEALED_PREFIX}{self._current}:{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, text: str, tenant: str, field: str) -> str:
        """The plain text. Raises UnknownKey or Tampered."""
        if not is_sealed(text):
            raise Tampered(f"{field}: expected a text that starts with {SEALED_PREFIX}, found another form")
        key_id, _, encoded = text.removeprefix(SEALED_PREFIX).partition(":")
        if (cipher := self._ciphers.get(key_id)) is None:
            raise UnknownKey(
                f"{field}: sealed with key {key_id[:32]!r}, which MILLSTREAM_SEALING__KEYS does not hold;"
                " add that key behind the first one"
            )
        try:
            sealed = base64.b64decode(encoded, altchars=b"-_", validate=True)
            if len(sealed) < NONCE_BYTES + TAG_BYTES or base64.urlsafe_b64encode(sealed).decode() != encoded:
                raise ValueError("too short, or another spelling of the same bytes")
            plain = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _context(tenant, field))
        except (InvalidTag, binascii.Error, ValueError):
            raise Tampered(f"{field}: altered, cut, or sealed for another tenant or field") from None
        return plain.decode()


def _context(tenant: str, field: str) -> bytes:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    return f"{len(tenant)}:{tenant}{field}".encode()

"""Signed, expiring links to files: whoever holds one may read that one file until it expires.

`/files/<execution>/<name>?expires=<epoch s>&kid=<key id>&sig=<base64url HMAC-SHA256>`. The signature covers
method, tenant, execution, name, expiry and key id, each with its length. HEAD is allowed where GET is.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import quote

METHOD = "GET"
_QUERY = re.compile(
    r"expires=(?P<expires>[1-9][0-9]{0,11})&kid=(?P<kid>[A-Za-z0-9_-]+)&sig=(?P<sig>[A-Za-z0-9_-]+)", re.ASCII
)


class Links:
    """Signs with the first key, verifies with all."""

    def __init__(self, keys: Mapping[str, bytes], ttl_s: int) -> None:
        """`keys`: key id -> 32 bytes, as parsed from MILLSTREAM_LINKS__KEYS."""
        self._keys = dict(keys)
        self._current = next(iter(keys))
        self.ttl_s = ttl_s

    def link(self, tenant: str, execution: str, name: str, now_s: int) -> tuple[str, int]:
        """Path and query of a link made at `now_s`, and the second at which it expires."""
        expires = now_s + self.ttl_s
        signature = _signature(self._keys[self._current], tenant, execution, name, expires, self._current)
        return f"{path(execution, name)}?expires={expires}&kid={self._current}&sig={signature}", expires

    def permits(self, query: str, tenant: str, execution: str, name: str, now_s: float) -> bool:
        """Whether the raw query of a link opens this file now. Anything but our own spelling does not."""
        match = _QUERY.fullmatch(query)
        key = self._keys.get(match["kid"]) if match else None
        if match is None or key is None:
            return False
        expires = int(match["expires"])
        expected = _signature(key, tenant, execution, name, expires, match["kid"])
        return hmac.compare_digest(expected, match["sig"]) and now_s < expires


def path(execution: str, name: str) -> str:
    """The path of a file, in its only accepted spelling."""
    return f"/files/{execution}/{quote(name, safe='')}"


def _signature(key: bytes, tenant: str, execution: str, name: str, expires: int, key_id: str) -> str:
    parts = (METHOD, tenant, execution, name, str(expires), key_id)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

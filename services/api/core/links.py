"""Signed, expiring links to files: whoever holds one may read that one file until it expires.

`/files/<execution>/<name>?expires=<epoch s>&kid=<key id>&sig=<base64url HMAC-SHA256>`. The signature covers
method, tenant, execution, name, expiry, key id and the file's link generation, each with its length. HEAD is
allowed where GET is. A file whose generation was raised has new links only; no link lives longer than a week,
whoever signed it.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import quote

METHOD = "GET"
LIFE_S_MAX = 604_800
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

    def link(
        self, tenant: str, execution: str, name: str, now_s: int, generation: int = 0
    ) -> tuple[str, int]:
        """Path and query of a link made at `now_s`, and the second at which it expires."""
        expires = now_s + self.ttl_s
        key_id = self._current
        signature = _signature(self._keys[key_id], tenant, execution, name, expires, key_id, generation)
        return f"{path(execution, name)}?expires={expires}&kid={key_id}&sig={signature}", expires

    def permits(
        self, query: str, tenant: str, execution: str, name: str, now_s: float, generation: int = 0
    ) -> str | None:
        """The id of the key that signed, if the raw query of a link opens this file now, else None.

        Anything but our own spelling opens nothing.
        """
        match = _QUERY.fullmatch(query)
        key = self._keys.get(match["kid"]) if match else None
        if match is None or key is None:
            return None
        expires = int(match["expires"])
        expected = _signature(key, tenant, execution, name, expires, match["kid"], generation)
        is_ours = hmac.compare_digest(expected, match["sig"])
        return match["kid"] if is_ours and now_s < expires <= now_s + LIFE_S_MAX else None


def path(execution: str, name: str) -> str:
    """The path of a file, in its only accepted spelling."""
    return f"/files/{execution}/{quote(name, safe='')}"


def _signature(
    key: bytes, tenant: str, execution: str, name: str, expires: int, key_id: str, generation: int
) -> str:
    parts = (METHOD, tenant, execution, name, str(expires), key_id, str(generation))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

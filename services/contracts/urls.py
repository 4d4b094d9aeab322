"""One strict reading of a URL that we are going to call.

api refuses by it and the outgoing client connects by it: with a single parser there is no second opinion
about which host a text names.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address

MAX_LENGTH = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_ALLOWED = re.compile(r"[!#-;=?-Z\[\]_a-z~]*")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[^?]*)?(?:\?.*)?)",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in parts: `host` in lower case, IPv6 in its short form; path and query exactly as written."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        """The value of `Host`: the port only when it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(text: str) -> Url:
    """Read an absolute http or https URL. ValueError says what was expected, without repeating the text.

    Refused although RFC 3986 knows them: user information, fragments, anything but printable ASCII (an
    international host name is written in its xn-- form), percent signs in the host, zone ids.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"expected at most {MAX_LENGTH} characters, found {len(text)}")
    if not _ALLOWED.fullmatch(text):
        raise ValueError(
            "expected URL characters only (ASCII, no spaces, quotes or backslashes); encode others"
        )
    if "#" in text:
        raise ValueError("expected no fragment (#...); remove it")
    authority = text.partition("://")[2].partition("/")[0].partition("?")[0]
    if "@" in authority:
        raise ValueError("expected no user or password before the host; put credentials into headers")
    match = _URL.fullmatch(text)
    if not match:
        raise ValueError("expected an absolute URL, http(s)://host[:port][/path][?query]")
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise ValueError(f"expected a port from 1 to 65535, found {port}")
    target = match["target"]
    return Url(scheme, _host(match["host"].lower()), port, target if target[:1] == "/" else f"/{target}")


def _host(text: str) -> str:
    if not text.startswith("["):
        return text
    try:
        return str(IPv6Address(text[1:-1]))
    except ValueError:
        raise ValueError("expected an IPv6 address between the brackets") from None

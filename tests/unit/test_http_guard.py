"""The outgoing client: what it refuses to reach, and what it makes of answers. Receivers are real sockets."""

import asyncio
import datetime
import gzip
import ipaddress
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.runtime.addresses import Network, is_allowed
from services.runtime.exchange import Refused, Response, SendError
from services.runtime.http import KEPT_BYTES, Client
from tests.forbidden import BLOCKED, NAMES, PUBLIC_V4, PUBLIC_V6, SPELLINGS, URLS


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def answers(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return resolve


@asynccontextmanager
async def client(
    *allow: str, resolve: Callable[[str, int], Awaitable[Sequence[str]]] | None = None, timeout_s: float = 10
) -> AsyncIterator[Client]:
    client = Client(networks(*allow), "Millstream/test", timeout_s, resolve)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def receiver(
    handle: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """A raw server: `handle` gets the request's head and writes what it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await handle(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def replying(
    *pieces: bytes,
) -> Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    return handle


async def post(client: Client, url: str) -> Response:
    return await client.send("POST", url, {}, b"{}")


def shown(address: str) -> set[str]:
    """The spellings of an address that a message could give away; the shortest mean nothing."""
    return {form for form in (address, ipaddress.ip_address(address).exploded) if len(form) > 4}


# ---------------------------------------------------------------- addresses


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict() -> AsyncIterator[Client]:
    """A client without exceptions, whose name server is the table NAMES."""
    async with client(resolve=lambda host, port: answers(*NAMES[host])(host, port)) as strict:
        yield strict


@pytest.mark.parametrize("address", BLOCKED)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_blocked_literal_is_refused(strict: Client, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Refused, match="MILLSTREAM_OUTBOUND__ALLOW") as refusal:
        await post(strict, f"http://{host}:9/")
    assert not any(form in str(refusal.value) for form in shown(address))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_name_with_a_blocked_address_is_refused(strict: Client, name: str) -> None:
    with pytest.raises(Refused, match="MILLSTREAM_OUTBOUND__ALLOW") as refusal:
        await post(strict, f"http://{name}:9/")
    assert not any(form in str(refusal.value) for address in NAMES[name] for form in shown(address))


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC_V4,
        PUBLIC_V6,
        f"::ffff:{PUBLIC_V4}",
        f"64:ff9b::{PUBLIC_V4}",
        "172.32.0.1",
        "100.128.0.1",
        "9.9.9.9",
    ],
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address, ())


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "1.2.3", "1.2.3.4.5", "0x7f.0.0.1", "::g"])
def test_what_is_no_address_is_not_allowed(text: str) -> None:
    assert not is_allowed(text, networks("0.0.0.0/0", "::/0"))


async def test_an_operator_may_allow_a_network() -> None:
    async with receiver(replying(b"HTTP/1.1 204 No Content\r\n\r\n")) as port:
        async with client("127.0.0.0/8") as guarded:
            assert (await post(guarded, f"http://127.0.0.1:{port}/")).status == 204
        async with client("127.0.0.0/8", resolve=answers("::ffff:127.0.0.1")) as guarded:
            assert (await post(guarded, f"http://receiver.example:{port}/")).status == 204
        async with client("10.0.0.0/8", "::1/128") as guarded:
            with pytest.raises(Refused):
                await post(guarded, f"http://127.0.0.1:{port}/")


async def test_a_name_is_resolved_once_for_a_connection() -> None:
    """Rebinding: the second answer would be a blocked address, but nobody asks for it."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    answer = replying(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    async with receiver(answer) as port, client("127.0.0.0/8", resolve=resolve) as guarded:
        assert (await post(guarded, f"http://receiver.example:{port}/")).status == 200
        assert asked == ["receiver.example"]
        with pytest.raises(Refused):
            await post(guarded, f"http://receiver.example:{port}/")


async def test_the_last_gate_holds_when_nothing_was_checked_before() -> None:
    connected: list[bytes] = []

    async def handle(head: bytes, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        connected.append(head)

    async with receiver(handle) as port, client() as guarded:
        connector = aiohttp.TCPConnector(socket_factory=guarded.open_socket)
        async with aiohttp.ClientSession(connector=connector) as unguarded:
            with pytest.raises(aiohttp.ClientConnectorError):
                await unguarded.get(f"http://127.0.0.1:{port}/")
    assert connected == []


# ---------------------------------------------------------------- spellings


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_odd_spelling_of_an_address_is_refused(strict: Client, host: str) -> None:
    with pytest.raises(Refused):
        await post(strict, f"http://{host}:9/")


@pytest.mark.parametrize("url", URLS)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_url_of_another_form_is_refused(strict: Client, url: str) -> None:
    with pytest.raises(Refused, match="url: ") as refusal:
        await post(strict, url)
    assert "secret" not in str(refusal.value)


async def test_whatever_the_system_makes_of_a_name_is_checked() -> None:
    async with client() as guarded:
        with pytest.raises(Refused, match="not allowed"):
            await post(guarded, "http://localhost:9/")


async def test_a_name_without_an_address_says_so() -> None:
    async with client() as guarded:
        with pytest.raises(SendError, match="cannot be resolved"):
            await post(guarded, "http://nothing.invalid/")


# ---------------------------------------------------------------- what is sent


async def test_the_request_is_sent_as_given_with_the_name_as_host() -> None:
    seen: list[bytes] = []

    async def handle(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(head + await reader.readexactly(5))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\nok")

    async with receiver(handle) as port, client("127.0.0.0/8", resolve=answers("127.0.0.1")) as guarded:
        url = f"http://Receiver.example:{port}/a%2Fb/../c?d=%20&e"
        for _ in range(2):
            response = await guarded.send("PUT", url, {"X-Token": "t"}, b"hello")
    head = seen[0].decode()
    assert head.startswith("PUT /a%2Fb/../c?d=%20&e HTTP/1.1\r\n")
    assert head.endswith("\r\n\r\nhello")
    lines = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:-2])
    }
    assert lines["host"] == f"receiver.example:{port}"
    assert (lines["x-token"], lines["user-agent"], lines["accept-encoding"]) == (
        "t",
        "Millstream/test",
        "identity",
    )
    assert "cookie" not in seen[1].decode().lower().replace("set-cookie", "")
    assert (response.status, response.body, response.whole) == (200, b"ok", True)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    answer = replying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with receiver(answer) as port, client("127.0.0.0/8") as guarded:
        assert (await post(guarded, f"http://127.0.0.1:{port}/")).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    head = f"HTTP/1.1 {status} Go\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n".encode()
    async with receiver(replying(head)) as port, client("127.0.0.0/8") as guarded:
        assert (await post(guarded, f"http://127.0.0.1:{port}/")).status == status


async def test_a_header_with_a_line_break_is_never_sent() -> None:
    async with receiver(replying(b"HTTP/1.1 200 OK\r\n\r\n")) as port, client("127.0.0.0/8") as guarded:
        with pytest.raises(SendError, match="cannot be sent as HTTP"):
            await guarded.send("POST", f"http://127.0.0.1:{port}/", {"X-A": "1\r\nX-B: 2"}, b"")


# ---------------------------------------------------------------- answers


async def test_a_long_answer_is_cut() -> None:
    async def handle(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:  # until the client has had enough
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with receiver(handle) as port, client("127.0.0.0/8") as guarded:
        response = await post(guarded, f"http://127.0.0.1:{port}/")
    assert (response.status, response.body, response.whole) == (200, b"x" * KEPT_BYTES, False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_compressed_answer_stays_compressed(encoding: str) -> None:
    bomb = zlib.compress(b"\0" * 1_000_000) if encoding == "deflate" else gzip.compress(b"\0" * 1_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with receiver(replying(head, bomb)) as port, client("127.0.0.0/8") as guarded:
        response = await post(guarded, f"http://127.0.0.1:{port}/")
    assert response.body == bomb[:KEPT_BYTES]


async def hang(_head: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drip(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")


async def drip_head(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-A: ")


async def continue_for_ever(
    _head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        await writer.drain()


async def reset(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


@pytest.mark.parametrize("handle", [hang, drip_head, continue_for_ever])
async def test_no_answer_in_time_is_a_failure(
    handle: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with receiver(handle) as port, client("127.0.0.0/8", timeout_s=0.3) as guarded:
        with pytest.raises(SendError, match=r"no answer within 0\.3 s"):
            await post(guarded, f"http://127.0.0.1:{port}/")


async def test_a_slow_look_up_is_within_the_timeout() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    async with client(resolve=resolve, timeout_s=0.2) as guarded:
        with pytest.raises(SendError, match=r"no answer within 0\.2 s"):
            await post(guarded, "http://receiver.example/")


async def test_a_slow_body_does_not_undo_the_status() -> None:
    async with receiver(drip) as port, client("127.0.0.0/8", timeout_s=0.3) as guarded:
        response = await post(guarded, f"http://127.0.0.1:{port}/")
    assert (response.status, response.body, response.whole) == (200, b"abc", False)


@pytest.mark.parametrize(
    ("handle", "word"),
    [
        (reset, "closed the connection"),
        (replying(), "closed the connection"),
        (replying(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "not valid HTTP"),
        (replying(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n"), "not valid HTTP"),
        (replying(b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 20_000 + b"\r\n\r\n"), "not valid HTTP"),
    ],
)
async def test_a_broken_answer_is_told_in_our_words(
    handle: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], word: str
) -> None:
    async with receiver(handle) as port, client("127.0.0.0/8") as guarded:
        with pytest.raises(SendError, match=word) as failure:
            await post(guarded, f"http://127.0.0.1:{port}/")
    assert "127.0.0.1" not in str(failure.value)


async def test_a_closed_port_does_not_show_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with client("127.0.0.0/8", resolve=answers("127.0.0.1")) as guarded:
        with pytest.raises(SendError, match=r"^connection refused$"):
            await post(guarded, f"http://receiver.example:{port}/")


# ---------------------------------------------------------------- TLS


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for `name`; certificate and key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


async def test_tls_is_spoken_with_the_name_although_the_connection_goes_to_a_literal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path, "receiver.example")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    names: list[str] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    answer = replying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with receiver(answer, tls) as port:
        async with client("127.0.0.0/8", resolve=answers("127.0.0.1")) as guarded:
            with pytest.raises(SendError, match="certificate refused"):
                await post(guarded, f"https://receiver.example:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        async with client("127.0.0.0/8", resolve=answers("127.0.0.1")) as guarded:
            assert (await post(guarded, f"https://receiver.example:{port}/")).status == 200
            with pytest.raises(SendError, match="certificate refused"):
                await post(guarded, f"https://other.example:{port}/")
    assert names == ["receiver.example", "receiver.example", "other.example"]

"""What outgoing calls must never reach, for the tests of every way out: addresses, names, spellings, URLs."""

PUBLIC_V4, PUBLIC_V6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"

BLOCKED = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0:10.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
NAMES: dict[str, tuple[str, ...]] = {
    **{f"blocked-{index}.example": (address,) for index, address in enumerate(BLOCKED)},
    "mixed-1.example": (PUBLIC_V4, "127.0.0.1"),
    "mixed-2.example": ("127.0.0.1", PUBLIC_V4),
    "mixed-3.example": (PUBLIC_V6, PUBLIC_V4, "::ffff:10.0.0.1"),
}
"""A name server's answers; one blocked address spoils all."""
SPELLINGS = [
    "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "127.0.0.1.", "127.0.0.01", "256.0.0.1", "a.1", "0x",
]  # fmt: skip
"""Hosts that some resolver reads as an address."""
URLS = [
    "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://１２７.0.0.1/",
    "http://user:secret@93.184.215.14/", "http://93.184.215.14@127.0.0.1/", "http://example.com\\@127.0.0.1/",
    "http://example.com%2f@127.0.0.1/", "http://127.0.0.1#@example.com/", "http://example.com\t.evil/",
    "file:///etc/passwd", "gopher://127.0.0.1/", "ftp://example.com/", "//example.com/", "dict://127.0.0.1:1/",
    "http://example.com:0/", "http://example.com:65536/", "http://example.com:8o/", "http://[::1%25lo]/",
    "http://[127.0.0.1]/", "http://[::1", "http://", "",
]  # fmt: skip
"""Texts that two readers would take for two URLs, or that are none of ours."""

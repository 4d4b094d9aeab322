"""Which addresses our own calls to other people's URLs may reach.

The list is explicit. Python's `ipaddress.is_global` is no filter: it counts NAT64, 6to4, site-local,
IPv4-compatible and multicast addresses as global, and 64:ff9b::a9fe:a9fe is a metadata service.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

BLOCKED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared address space of carriers; some clouds keep their metadata here
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's platform service, on a public address
        "169.254.0.0/16",  # link-local: metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# All that lies outside the global unicast block 2000::/3, then what is special inside it.
BLOCKED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "::/3",  # unspecified, loopback, IPv4-compatible, translated, local NAT64
        "4000::/2",  # unassigned; 5f00::/16 is segment routing
        "8000::/1",  # unassigned; fc00::/7 private, fe80::/10 and fec0::/10 local, ff00::/8 multicast
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address past every IPv4 rule
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
MAPPED = IPv6Network("::ffff:0:0/96")
NAT64 = IPv6Network("64:ff9b::/96")


def effective(address: Address) -> Address:
    """The address that a connection really reaches: the IPv4 one inside a mapped or NAT64 address."""
    if isinstance(address, IPv6Address) and (address in MAPPED or address in NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_allowed(text: str, allow: Sequence[Network]) -> bool:
    """Whether we may connect to this literal; no to what is none. `allow` are the operator's exceptions."""
    try:
        address = effective(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    if any(address in network for network in allow if network.version == address.version):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in BLOCKED_V4)
    return not any(address in network for network in BLOCKED_V6)

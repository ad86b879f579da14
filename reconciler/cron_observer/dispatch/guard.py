"""Which addresses a request may go to. Pure.

The address that a name turned out to have is judged, never the name, and the request goes to that address. What one
address is made of is judged as well: IPv4 inside of IPv6, in all the ways in which a network may unpack it.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

#: What the library calls global, or used to, and is not the open Internet.
_CLOSED: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared by customers of a provider
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",  # IPv4 in the last bits, of old
        "::ffff:0:0:0/96",
        "64:ff9b:1::/48",  # translation inside of a network
        "100::/64",
        "2001::/23",  # with Teredo
        "2002::/16",  # tunnels to any IPv4 address
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)

#: Where the last 32 bits are an IPv4 address that a network may translate to.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def refusal(text: str, allowed: Collection[Network]) -> str | None:
    """Say why no request may go to an address; None if one may.

    `allowed` are networks that an operator has opened, to an address or to the IPv4 address that it stands for.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "it is no address"
    return None if is_opened(text, allowed) or not _is_closed(_meant(address)) else "it is private, local or reserved"


def is_opened(text: str, allowed: Collection[Network]) -> bool:
    """Say whether an operator has opened the network of an address, with all its ports."""
    address = ip_address(text.partition("%")[0])
    known = {address, _meant(address)}
    return any(one.version == network.version and one in network for one in known for network in allowed)


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else address


def _is_closed(address: Address) -> bool:
    if any(address.version == network.version and address in network for network in _CLOSED):
        return True
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return special or address.is_private or address.is_link_local or not address.is_global

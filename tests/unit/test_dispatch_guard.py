"""Which addresses a webhook may go to."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from cron_observer.dispatch import guard

CLOSED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104  judged, not bound
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.0.1",
    "100.64.0.1",
    "100.127.255.254",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "::1",
    "::",
    "::127.0.0.1",
    "::a9fe:a9fe",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:100.64.0.1",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:0808:0808::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "2001:db8::1",
    "localhost",
    "nonsense",
]

OPEN = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "93.184.215.14"]


@pytest.mark.parametrize("address", CLOSED)
def test_what_is_not_the_open_internet_is_refused(address: str) -> None:
    """Private, local, shared, multicast, reserved and metadata addresses, also as IPv4 inside of IPv6."""
    assert guard.refusal(address, ()) is not None


@pytest.mark.parametrize("address", OPEN)
def test_the_open_internet_is_let_through(address: str) -> None:
    """Public addresses, also where a network translates to them."""
    assert guard.refusal(address, ()) is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.20.3.4", "10.20.0.0/16"),
        ("::ffff:10.20.3.4", "10.20.0.0/16"),
        ("64:ff9b::a14:304", "10.20.0.0/16"),
        ("::1", "::1/128"),
        ("fd12::5", "fd12::/32"),
    ],
)
def test_an_operator_may_open_a_network(address: str, network: str) -> None:
    """What the setting names is let through, and nothing beside it."""
    assert guard.refusal(address, [ip_network(network)]) is None
    assert guard.refusal(address, [ip_network("10.21.0.0/16")]) is not None
    assert guard.is_opened(address, [ip_network(network)])

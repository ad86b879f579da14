"""The edge's own judgements: hosts, loopback, buckets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cron_observer_api import limits
from cron_observer_api.auth import is_loopback
from cron_observer_api.edge import Hosts
from cron_observer_api.problems import BadHost, RateLimited


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104  only looked at
        ("::", False),
        ("192.0.2.7", False),
        ("localhost.example", False),
        ("cron.internal", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    """Only addresses that reach this machine alone let readers in without a key; names count as foreign."""
    assert is_loopback(host) is loopback


def test_a_request_has_exactly_one_host() -> None:
    """None or several are refused everywhere, as is one that is no authority."""
    for hosts in (Hosts.of("127.0.0.1", None, ()), Hosts.of("192.0.2.7", None, ())):
        for given in ([], [b"localhost", b"localhost"], [b""], [b":80"], [b"a b"], [b"[::1"], [b"user@localhost"]):
            with pytest.raises(BadHost):
                hosts.check(given)


def test_a_bucket_fills_again() -> None:
    """A key that has used up its burst gets one request for each step of the rate, and no more than its burst."""
    moments = SimpleNamespace(now=0.0)
    limiter = limits.Limiter(rate=2.0, burst=4)
    request: Any = SimpleNamespace(client=None, scope={"state": {}})
    waits: list[float] = []

    def allowed(times: int) -> int:
        granted = 0
        for _ in range(times):
            try:
                limiter.count(request, "k", moments.now)
            except RateLimited as refused:
                waits.append(refused.facts["retry_after_seconds"])
            else:
                granted += 1
        return granted

    assert allowed(10) == 4
    moments.now += 1.0
    assert allowed(10) == 2
    moments.now += 100.0
    assert allowed(10) == 4
    limiter.count(request, "other", moments.now)
    assert set(waits) == {0.5}

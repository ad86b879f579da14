"""Problems of the server become exceptions that say what to mend."""

from __future__ import annotations

import pytest

import cron_observer_sdk as co
from cron_observer_sdk.errors import from_problem
from cron_observer_sdk.transport import Endpoint


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "unknown_field", co.BadRequest),
        (401, "unauthenticated", co.Unauthenticated),
        (403, "forbidden", co.Forbidden),
        (404, "not_found", co.NotFound),
        (409, "already_final", co.AlreadyFinal),
        (409, "already_claimed", co.AlreadyClaimed),
        (409, "not_running", co.NotRunning),
        (409, "lease_lost", co.LeaseLost),
        (409, "log_gap", co.LogGap),
        (409, "name_taken", co.Conflict),
        (413, None, co.TooLarge),
        (429, "rate_limited", co.RateLimited),
        (503, "unavailable", co.Unavailable),
        (500, None, co.ApiError),
    ],
)
def test_every_code_has_its_class(status: int, code: str | None, kind: type[co.ApiError]) -> None:
    """The code decides, else the status does."""
    error = from_problem(status, {"code": code} if code else {}, "refused")
    assert type(error) is kind
    assert (error.status, error.code) == (status, code or f"http_{status}")
    assert isinstance(error, co.CronObserverError)


def test_messages_hold_detail_and_hint() -> None:
    """What the server says, and how to mend it, is what a person reads."""
    error = from_problem(404, {"code": "not_found", "detail": "no such task", "hint": "push it"}, "?")
    assert str(error) == "no such task (push it)"
    assert error.hint == "push it"
    assert str(from_problem(418, {}, "the server answered 418")) == "the server answered 418"


def test_conflicts_carry_their_facts() -> None:
    """A gap names the number, a late completion the stored outcome."""
    gap = from_problem(409, {"code": "log_gap", "expected_seq": 7}, "")
    assert isinstance(gap, co.LogGap)
    assert gap.expected_seq == 7
    late = from_problem(409, {"code": "already_final", "execution": {"status": "FAILED"}}, "")
    assert isinstance(late, co.AlreadyFinal)
    assert late.stored == {"status": "FAILED"}


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:8475", Endpoint(False, "127.0.0.1", 8475, "")),
        ("https://cron.example/", Endpoint(True, "cron.example", 443, "")),
        ("https://cron.example/base/", Endpoint(True, "cron.example", 443, "/base")),
        ("http://[::1]:99", Endpoint(False, "::1", 99, "")),
    ],
)
def test_addresses_are_taken_apart(url: str, endpoint: Endpoint) -> None:
    """Host, port and prefix come from the URL, the port from its scheme if need be."""
    assert Endpoint.read(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "cron.example",
        "ftp://x",
        "http://",
        "http://u:p@h",
        "http://h:no",
        "http://h?x=1",
        "http://h:99999",
        "http://h h",
    ],
)
def test_unusable_addresses_are_refused_without_their_secrets(url: str) -> None:
    """An address that cannot be used is said to be so, and not repeated: it may hold a password."""
    with pytest.raises(co.NotConfigured) as refused:
        co.Client(url, "token")
    assert "u:p" not in str(refused.value)


def test_a_client_without_settings_can_be_made_but_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing a module with work in it needs no server; calling one does."""
    monkeypatch.delenv("CRON_OBSERVER_URL", raising=False)
    monkeypatch.delenv("CRON_OBSERVER_TOKEN", raising=False)
    client = co.Client()
    assert not client.configured
    with pytest.raises(co.NotConfigured, match="CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN not set"):
        client.pending()


def test_the_token_is_never_shown() -> None:
    """Neither the client's looks nor the refusal of a broken token show it."""
    assert "secret" not in repr(co.Client("http://h", "secret"))
    with pytest.raises(co.NotConfigured) as refused:
        co.Client("http://h", "secret\nX-Evil: 1")
    assert "secret" not in str(refused.value)

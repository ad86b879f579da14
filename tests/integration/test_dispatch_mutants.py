"""The checks of webhooks can fail: each line below breaks the dispatcher in one place, and a check must see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from integration import test_dispatch_faults as faults
from integration import test_dispatch_requests as requests
from integration import test_dispatch_safety as safety
from support.databases import FreshDatabase, Tenant
from support.mutants import Mutant
from support.receivers import reply

Check = Callable[[FreshDatabase, Tenant, pytest.MonkeyPatch, Any], Awaitable[None]]


def plain(test: Callable[..., Awaitable[None]], *arguments: Any) -> Check:
    """Return a check of a test that needs a database, a tenant and these."""
    return lambda database, tenant, _patch, _folder: test(database, tenant, *arguments)


def patched(test: Callable[..., Awaitable[None]]) -> Check:
    """Return a check of a test that sets variables."""
    return lambda database, tenant, patch, _folder: test(database, tenant, patch)


def in_folder(test: Callable[..., Awaitable[None]]) -> Check:
    """Return a check of a test that writes files."""
    return lambda database, tenant, _patch, folder: test(database, tenant, folder)


MUTANTS: list[tuple[Mutant, Check]] = [
    (
        Mutant("dispatch.guard", "refusal", "not _is_closed(_meant(address))", "True"),
        plain(safety.test_loopback_is_out_of_reach, "127.0.0.1"),
    ),
    (
        Mutant("dispatch.sending", "Sender._exchange", 'named.copy_with(host=address.partition("%")[0])', "named"),
        plain(safety.test_the_address_that_was_judged_is_the_one_that_is_reached),
    ),
    (
        Mutant("dispatch.sending", "Sender._refused", "for address in addresses:", "for address in addresses[:1]:"),
        plain(safety.test_one_closed_address_taints_the_others),
    ),
    (
        Mutant("dispatch.sending", "Sender._refused", "port not in self._ports", "False"),
        plain(safety.test_only_ports_of_http_are_reached_outside),
    ),
    (
        Mutant("dispatch.sending", "Sender._exchange", 'strip("[]"),', 'replace("other", "jobs"),'),
        in_folder(safety.test_certificates_are_those_of_the_name),
    ),
    (
        Mutant("dispatch.sending", "Sender._read", "if len(body) > BODY_MAX:\n                break", "pass"),
        plain(faults.test_an_answer_cannot_hurt),
    ),
    (
        Mutant("dispatch.sending", "Sender.send", "asyncio.timeout(patience)", "asyncio.timeout(None)"),
        plain(faults.test_the_deadline_is_for_all_of_a_request, faults.drip),
    ),
    (
        Mutant("dispatch.answer", "judge", "status >= 500", "status >= 400"),
        plain(requests.test_the_answer_decides, reply(404), "FAILED", None),
    ),
    (
        Mutant("dispatch.answer", "judge", "if status == 202:", "if False:"),
        plain(requests.test_202_goes_on_through_the_protocol),
    ),
    (
        Mutant("dispatch.answer", "_retry_after", "int(said[:9])), RETRY_AFTER_MAX)", "int(said[:9])), timedelta(99))"),
        plain(requests.test_retry_after_is_heeded_up_to_an_hour, "86400", 3590, 3601),
    ),
    (
        Mutant("dispatch.answer", "_without", 're.sub("".join(map(_forms, secret)), "***", text)', "text"),
        patched(requests.test_nothing_secret_is_kept),
    ),
    (
        Mutant(
            "dispatch.request",
            "_ours",
            '"webhook-id": str(identity)',
            '"webhook-id": str(identity) + str(execution["attempt"])',
        ),
        plain(requests.test_retries_carry_the_same_id_and_end),
    ),
    (
        Mutant(
            "dispatch.signature",
            "sign",
            "(identity.encode(), str(timestamp).encode(), body)",
            "(identity.encode(), body)",
        ),
        in_folder(requests.test_a_request_says_who_it_is),
    ),
    (
        Mutant("dispatch.attempt", "Attempt._secret", "if not self._job.trusted:", "if False:"),
        patched(requests.test_another_tenants_secrets_are_out_of_reach),
    ),
    (
        Mutant("dispatch.attempt", "Attempt._watch", "if written.stop or (", "if False and ("),
        plain(requests.test_a_cancelled_execution_hangs_up),
    ),
    (
        Mutant("lifecycle.decide", "failed", ", not_before or timedelta(0))", ", timedelta(0))"),
        plain(requests.test_retry_after_is_heeded_up_to_an_hour, "120", 115, 121),
    ),
    (
        Mutant(
            "lifecycle.decide", "failed", "run.attempt <= policy.retries_max", "run.attempt <= policy.retries_max + 1"
        ),
        plain(requests.test_retries_carry_the_same_id_and_end),
    ),
]


@pytest.mark.parametrize(
    ("mutant", "check"), MUTANTS, ids=lambda one: f"{one.name}: {one.new}" if isinstance(one, Mutant) else ""
)
async def test_the_checks_see_broken_dispatchers(
    database: FreshDatabase,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    mutant: Mutant,
    check: Check,
) -> None:
    """A broken line of the dispatcher fails the check of what it is for."""
    monkeypatch.setattr("cron_observer.dispatch.loop.STOP_GRACE", 0.2)
    monkeypatch.setattr("support.receivers.PATIENCE", 4.0)
    mutant.apply(monkeypatch)

    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        await check(database, tenant, monkeypatch, tmp_path)

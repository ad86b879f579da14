"""The sync pages say what waits: held removals with the command that releases them, suspensions, what forges know."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.databases import Tenant
from support.pages import part, site, text_of

HASH = "1a2b3c4d" * 8

HELD = [
    {"kind": "Task", "name": "invoice-export", "path": "tasks/billing/invoice-export.yaml", "line": 5},
    {"kind": "Calendar", "name": "holidays", "path": "calendars.yaml", "line": 1},
]


def hold(tenant: Tenant, reason: str = "too_many", plan_hash: str | None = HASH, count: int = 2) -> None:
    """Let the source hold removals."""
    told = json.dumps([HELD[number % 2] | {"reason": reason} for number in range(count)])
    tenant.database.do("UPDATE sources SET held = %s::jsonb, plan_hash = %s", told if count else None, plan_hash)


async def test_held_removals_are_listed_with_the_command(tenant: Tenant) -> None:
    """What is held, where it was declared, why, and what an administrator types; the list of sources leads there."""
    async with site(tenant, days=1) as it:
        hold(tenant)
        page = part(await it.get("/sync/main"), "held")
        overview = await it.get("/sync")
    said = text_of(page)
    for words in (
        *("invoice-export", "Calendar", "holidays", "tasks/billing/invoice-export.yaml:5"),
        *("the commit removes many at once", f"cron-observer sources approve main {HASH}"),
        "nothing of this happens before somebody approves it",
    ):
        assert words in said, words
    assert "#L5" in page
    assert 'href="/sync/main#held"' in overview
    assert "2 removals held" in text_of(overview)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("unparseable", "a file cannot be read"),
        ("prune_off", "the source removes nothing"),
        ("disabled", "its lifecycle keeps it from being removed"),
        ("in_use", "others still refer to it"),
        ("handed_over", "another source takes it over"),
        ("something_new", "something new"),
    ],
)
async def test_what_no_approval_releases_offers_no_command(tenant: Tenant, reason: str, words: str) -> None:
    """The reason is said in words, and nobody is sent to approve what cannot be."""
    async with site(tenant, days=1) as it:
        hold(tenant, reason, None)
        said = text_of(part(await it.get("/sync/main"), "held"))
    assert words in said
    assert "approve" not in said
    assert "they happen by themselves when the reason is gone" in said


async def test_a_rewritten_history_is_approved_like_a_removal(tenant: Tenant) -> None:
    """Nothing is listed, and the page says what waits and how it is let happen."""
    async with site(tenant, days=1) as it:
        hold(tenant, count=0)
        said = text_of(part(await it.get("/sync/main"), "held"))
        overview = text_of(await it.get("/sync"))
    assert "The branch was rewritten." in said
    assert f"cron-observer sources approve main {HASH}" in said
    assert "History held" in overview


async def test_many_held_removals_are_counted(tenant: Tenant) -> None:
    """The first fifty are listed; the number says how many there are."""
    async with site(tenant, days=1) as it:
        hold(tenant, count=120)
        page = part(await it.get("/sync/main"), "held")
    assert "120, 50 shown" in text_of(page)
    assert page.count("<tr>") == 51


async def test_nothing_held_says_nothing(tenant: Tenant) -> None:
    """Without held removals there is no such part."""
    async with site(tenant, days=1) as it:
        assert 'id="held"' not in await it.get("/sync/main")


async def test_a_suspension_is_said_before_everything_else(tenant: Tenant) -> None:
    """Who, why, since and until when, and the command that ends it; it is the first word about the source."""
    async with site(tenant, days=1) as it:
        tenant.database.do(
            "UPDATE sources SET suspended_at = now() - interval '2 hours', suspended_by = 'key:abcdefgh',"
            " suspend_reason = 'freeze <b>until</b> Monday', failures = 2, requested_seq = handled_seq + 1"
        )
        page = await it.get("/sync/main")
        said = text_of(part(page, "suspension"))
        card = text_of(page[page.index('aria-label="Source main"') : page.index('id="findings"')])
        tenant.database.do("UPDATE sources SET suspended_until = now() + interval '3 hours'")
        ends = text_of(part(await it.get("/sync/main"), "suspension"))
        tenant.database.do("UPDATE sources SET suspended_until = now() - interval '1 hour'")
        over = await it.get("/sync/main")
    assert "Suspended 2 h ago by key:abcdefgh: “freeze <b>until</b> Monday”" in said
    assert "It lasts until somebody resumes the source" in said
    assert "cron-observer sources resume main" in said
    assert "It ends by itself" in ends
    assert "Cannot be read" not in card
    assert "Asked to sync" not in card
    assert re.search(r'class="pill pause"[^>]*>.*?Suspended', page, re.DOTALL)
    assert 'id="suspension"' not in over


async def test_conditions_that_time_makes_are_shown(tenant: Tenant) -> None:
    """Suspended and Stale are nowhere stored, and are shown."""
    async with site(tenant, days=1) as it:
        tenant.database.do(
            "UPDATE sources SET suspended_at = now(), suspended_by = 'key:abcdefgh', suspend_reason = 'x',"
            " observed_at = now() - interval '1 day', applied_at = now() - interval '1 day'"
        )
        page = await it.get("/sync/main")
        said = text_of(page[page.index('id="conditions-h"') :])
    assert "Suspended" in said
    assert "Stale" in said


async def test_runs_say_how_they_compared_and_what_took_how_long(tenant: Tenant) -> None:
    """Strategy, the slowest steps and the plan hash stand beside a run; outcomes have their words."""
    async with site(tenant, days=1) as it:
        tenant.database.do(
            "UPDATE sync_runs SET strategy = 'tree', plan_hash = %s, timings = %s::jsonb",
            HASH,
            '{"plan": 0.004, "fetch": 0.0312, "apply": 0.2}',
        )
        newest = "WHERE run_id = (SELECT run_id FROM sync_runs ORDER BY run_id DESC LIMIT 1)"
        tenant.database.do(f"UPDATE sync_runs SET outcome = 'observed', strategy = 'full' {newest}")
        page = await it.get("/sync/main")
        rows = [text_of(row) for row in re.findall(r"<tr data-row>(.*?)</tr>", page[page.index('id="runs"') :])]
        tenant.database.do(f"UPDATE sync_runs SET outcome = 'refused', timings = NULL {newest}")
        refused = text_of(await it.get("/sync/main"))
        assert "Refused" in text_of(await it.get("/sync"))
    assert "Observed" in rows[0]
    assert "everything" in rows[0]
    assert "difference" in rows[1]
    assert "fetch 0.03 s, apply 0.20 s" in rows[1]
    assert HASH[:12] in rows[1]
    assert HASH not in rows[1]
    assert "Refused" in refused


async def test_a_source_that_is_only_observed_says_so(tenant: Tenant) -> None:
    """Mode, policy and environment stand on the page of the source."""
    async with site(tenant, days=1) as it:
        enforced = text_of(await it.get("/sync/main"))
        tenant.database.do("UPDATE sources SET mode = 'observe', failure_policy = 'atomic', environment = 'staging'")
        said = text_of(await it.get("/sync/main"))
    assert "Observed only" not in enforced
    assert "the broken document keeps its last good version" in enforced
    assert "Observed only" in said
    assert "nothing of the commit is applied" in said
    assert "staging" in said


STATUSES: list[tuple[dict[str, Any], str]] = [
    ({"sent_at": "now() - interval '5 minutes'"}, "shows failure at 3f9c2ab , told 5 min ago"),
    ({"error": "'HTTP 401: Bad <i>credentials</i>'"}, "not told yet of 3f9c2ab : HTTP 401: Bad <i>credentials</i>"),
    ({"error": "'HTTP 422'", "gave_up_at": "now()"}, "was not told of 3f9c2ab : HTTP 422"),
    ({}, "is being told of 3f9c2ab"),
]


@pytest.mark.parametrize(("columns", "words"), STATUSES)
async def test_what_the_forge_knows_is_said(tenant: Tenant, columns: dict[str, Any], words: str) -> None:
    """Told, not told yet and why, or given up."""
    async with site(tenant, days=1) as it:
        tenant.database.do(
            "INSERT INTO commit_statuses"
            " (tenant_id, source_id, commit, context, state, description, due_at, created_at)"
            " SELECT tenant_id, source_id, applied_commit, 'main', 'failure', '3 applied', now(), now() FROM sources"
        )
        for name, value in columns.items():
            tenant.database.do(f"UPDATE commit_statuses SET {name} = {value}")
        said = text_of(await it.get("/sync/main"))
    assert words.replace(" ,", ",").replace(" :", ":") in said.replace(" ,", ",").replace(" :", ":")

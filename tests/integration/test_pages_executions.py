"""The page of an execution: what happened, by whose definition, and its log."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from support.databases import Tenant
from support.pages import Site, links_of, part, site, text_of


def logged(it: Site, kind: str) -> tuple[UUID, int]:
    """Return an execution of a kind that has a log, and its highest fence."""
    return max((one, fence) for one, fence, what in it.company.logged if what == kind)


def numbers(page: str) -> list[int]:
    """Return the numbers of the lines that a page shows."""
    return [int(number) for number in re.findall(r'<li id="L(\d+)"', page)]


async def test_a_failure_tells_its_whole_story(tenant: Tenant) -> None:
    """Attempts, reason, error, traceback, exit code, events and payload stand on the page."""
    async with site(tenant) as it:
        page = await it.get(f"/executions/{logged(it, 'failed')[0]}")
    said = text_of(page)
    assert len(re.findall(r"Attempt \d: Failed\.", said)) == 3
    assert "The command ended with an error code." in said
    assert "ConnectionError" in said
    assert "Traceback (most recent call last):" in said
    assert "Failed, will be retried" in said
    assert '"format": "csv"' in said
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd>(.*?) <small>", page))
    assert facts["Exit code"] == "70"
    assert facts["Attempt"] == "3"
    assert facts["Start delay"] == "–"


async def test_one_click_leads_to_the_line(tenant: Tenant) -> None:
    """The commit, its author, the file and the line that defined the run stand on the page, each one click away."""
    async with site(tenant) as it:
        page = await it.get(f"/executions/{logged(it, 'failed')[0]}")
        links = links_of(page)
        assert "/tasks/default/invoice-export?tab=definition#M4" in links
        assert (
            "https://github.com/acme-example/schedules/blob/3f9c2ab4d51e6b0a77c2f1f0d9be6a5c8e1d2f30"
            "/tasks/billing/invoice-export.yaml#L4"
        ) in links
        assert "by Ada Lovelace" in text_of(page)


async def test_the_definition_is_the_one_that_was_claimed(tenant: Tenant) -> None:
    """A run shows the revision that its claim pinned, whatever the task's manifest says now."""
    async with site(tenant) as it:
        execution = it.company.known["finished dbt-hourly"]
        tenant.database.do("UPDATE executions SET generation = 1 WHERE id = %s", execution)
        said = text_of(await it.get(f"/executions/{execution}"))
    assert "b71e04c" in said
    assert "First schedules" in said
    assert "Grace Hopper" in said


async def test_hostile_log_lines_are_shown_not_obeyed(tenant: Tenant) -> None:
    """Colours become classes; marks of direction, NUL and tags in a log line come out as signs and text."""
    async with site(tenant) as it:
        execution, fence = logged(it, "failed")
        page = await it.get(f"/executions/{execution}?from=0&attempt={fence}")
        log = part(page, "log")
    assert "<script>alert" not in log
    assert '&lt;script&gt;alert(1)&lt;/script&gt; <span class="af1">red</span>' in log
    assert 'user <span class="ctl">U+202E</span>gnp.exe' in log
    assert 'a<span class="ctl">NUL</span>file\twith a tab' in log
    assert not re.search("[\x00\x1b\u202e]", page)


async def test_the_log_opens_at_its_end_and_pages_back(tenant: Tenant) -> None:
    """Without JavaScript, the last lines come first, and links lead to the earlier ones and the first."""
    async with site(tenant) as it:
        execution, _ = logged(it, "failed")
        page = await it.get(f"/executions/{execution}")
        assert numbers(page) == list(range(141, 341))
        earlier = next(link for link in links_of(page) if "from=0" in link)
        back = await it.get(earlier)
        assert numbers(back) == list(range(1, 201))
        later = next(link for link in links_of(back) if "from=200" in link)
        assert numbers(await it.get(later)) == list(range(201, 341))
        (raw,) = [one for one in links_of(page) if one.startswith(f"/api/v1/executions/{execution}/logs.txt?")]
        assert "3.1 MB" in (await it.client.get(raw)).text


async def test_the_log_is_narrowed_by_level_and_search(tenant: Tenant) -> None:
    """A level means at least; a search marks what it finds; numbers stay those of the whole log."""
    async with site(tenant) as it:
        execution, _ = logged(it, "failed")
        warned = await it.get(f"/executions/{execution}?level=WARN")
        assert numbers(warned) == [6, 338, 339, 340]
        found = await it.get(f"/executions/{execution}?q=PARQUET&level=INFO")
        assert len(numbers(found)) == 84
        assert "<mark>parquet</mark>" in found
        nothing = await it.get(f"/executions/{execution}?q=nowhere")
        assert "No line matches." in nothing
        assert not numbers(nothing)


async def test_each_attempt_has_its_log(tenant: Tenant) -> None:
    """The log of an earlier attempt is a link away."""
    async with site(tenant) as it:
        execution, _ = logged(it, "failed")
        tenant.database.do("DELETE FROM log_chunks WHERE execution_id = %s AND fence = 1", execution)
        tenant.database.do("UPDATE attempts SET log_lines = 0 WHERE execution_id = %s AND fence = 1", execution)
        first = await it.get(f"/executions/{execution}?attempt=1")
        last = await it.get(f"/executions/{execution}")
    assert "This execution sent no log." in first
    assert numbers(last)


async def test_lines_alone_go_on_where_the_page_ended(tenant: Tenant) -> None:
    """The log view asks for lines from a number on, or by their place in a level, and learns how many there are."""
    async with site(tenant) as it:
        execution, _ = logged(it, "running")
        page = await it.get(f"/executions/{execution}/log?from=1190")
        assert numbers(page) == list(range(1191, 1201))
        assert 'data-total="1200" data-cuts="[]" data-end' in page
        part_ = await it.get(f"/executions/{execution}/log?from=0&limit=50")
        assert numbers(part_) == list(range(1, 51))
        assert 'data-total="1200" data-cuts="[]">' in part_
        over = await it.get(f"/executions/{execution}/log?from=1200")
        assert numbers(over) == []
        assert 'data-total="1200" data-cuts="[]" data-end' in over
        ranked = await it.get(f"/executions/{execution}/log?level=WARN&rank=0")
        assert numbers(ranked) == [6]
        assert 'data-total="1" ' in ranked


async def test_runs_of_a_task_are_chained(tenant: Tenant) -> None:
    """The next of the previous run is this one."""
    async with site(tenant) as it:
        here = f"/executions/{it.company.known['finished dbt-hourly']}"
        (before,) = re.findall(r'<a href="([^"]+)" rel="prev">', part(await it.get(here), "main"))
        (after,) = re.findall(r'<a href="([^"]+)" rel="next">', part(await it.get(before), "main"))
    assert after == here


async def test_a_forecast_says_that_it_is_one(tenant: Tenant) -> None:
    """A slot that is not due yet has a page that says when it will be."""
    async with site(tenant, days=1) as it:
        execution = tenant.database.value(
            "SELECT id FROM executions WHERE status = 'PENDING' AND available_at > now() ORDER BY fire_at LIMIT 1"
        )
        said = text_of(await it.get(f"/executions/{execution}"))
    assert "Upcoming" in said
    assert "Planned; it falls due" in said
    assert "History begins when the slot is due." in said


async def test_every_kind_of_outcome_has_its_word(tenant: Tenant) -> None:
    """Each status is said in its own word with its reason."""
    words: dict[str, Any] = {
        "finished": ("Finished", "Result"),
        "running": ("Running", "62 of 100 tables"),
        "failed": ("Failed", "The command ended with an error code."),
        "skipped": ("Skipped", "."),
        "missed": ("Missed", "Nobody took it in time."),
        "cancelled": ("Cancelled", "A person cancelled it."),
        "late": ("Late", "Finished"),
    }
    async with site(tenant, days=30) as it:
        for kind, (word, more) in words.items():
            said = text_of(await it.get(f"/executions/{it.company.known[kind]}"))
            assert word in said, kind
            assert more in said, kind

"""The sync pages: revision, outcome of each file, findings to the column."""

from __future__ import annotations

import re

from support.api import api
from support.databases import Tenant
from support.pages import ids_of, links_of, part, site, text_of


async def test_a_finding_names_file_line_and_column(tenant: Tenant) -> None:
    """Each finding shows its place, its code, the line with a caret under the column, and the hint."""
    async with site(tenant, days=1) as it:
        page = part(await it.get("/sync/main"), "findings")
    said = text_of(page)
    assert "tasks/mail/digest-eu.yaml:11:3" in said
    assert "CO1021" in said
    assert "unknown field timout" in said
    assert "did you mean timeout ?" in said
    assert '<span class="no">11</span>  timout: 1h</span>' in page
    assert '<span class="no"></span>  ^^^^^^^</span>' in page
    assert "The last good version, of commit b71e04c , keeps running." in said


async def test_the_sync_page_leads_to_the_finding(tenant: Tenant) -> None:
    """A finding on the page of all sources leads to its place on the page of its own."""
    async with site(tenant, days=1) as it:
        links = [link for link in links_of(part(await it.get("/sync"), "findings")) if link.startswith("/sync/main#")]
        page = await it.get("/sync/main")
    assert links
    assert {link.partition("#")[2] for link in links} <= set(ids_of(page))


async def test_each_file_shows_what_it_came_to(tenant: Tenant) -> None:
    """Broken files stand first with their outcome; sound ones lead to the tasks that they declare."""
    async with site(tenant, days=1) as it:
        page = part(await it.get("/sync/main"), "files")
        rows = [text_of(row) for row in re.findall(r"<tr data-row>(.*?)</tr>", page)]
    assert [row.split()[0] for row in rows[:3]] == [
        "tasks/mail/digest-eu.yaml",
        "tasks/mail/newsletter.yaml",
        "tasks/ml/drift-report.yaml",
    ]
    assert "Kept last good" in rows[0]
    assert "Cannot be read" in rows[1]
    assert "Not applied" in rows[2]
    (sound,) = [row for row in rows if "invoice-export.yaml" in row]
    assert "Applied" in sound
    assert "invoice-export" in sound.split()
    assert len(rows) == 14


async def test_revision_author_and_subject_are_shown(tenant: Tenant) -> None:
    """A source's card says which commit is applied, whose it is, and how old it is."""
    async with site(tenant, days=1) as it:
        for path in ("/sync", "/sync/main"):
            said = text_of(await it.get(path))
            assert "3f9c2ab" in said
            assert "Export invoices every second hour" in said
            assert re.search(r"by Ada Lovelace \d+ (s|min) ago", said)


async def test_hostile_commits_are_text(tenant: Tenant) -> None:
    """Authors and subjects of commits are written by strangers."""
    async with site(tenant, days=1) as it:
        page = await it.get("/sync/main")
    assert "<script>" not in page
    assert 'Sam <span class="ctl">U+202E</span>evil' in page


async def test_runs_go_on_page_by_page(tenant: Tenant) -> None:
    """Every run of the source is on some page, once."""
    async with site(tenant, days=1) as it:
        page = await it.get("/sync/main")
        first = re.findall(r"<tr data-row>(.*?)</tr>", page[page.index('id="runs"') :])
        (more,) = [link for link in links_of(page) if "before=" in link]
        page = await it.get(more.partition("#")[0])
        second = re.findall(r"<tr data-row>(.*?)</tr>", page[page.index('id="runs"') :])
    assert (len(first), len(second)) == (20, 5)
    assert "the repository did not answer within 20 s" in text_of("".join(first))


async def test_a_source_that_cannot_be_read_says_so(tenant: Tenant) -> None:
    """Failures are said with the reason, beside what keeps running; the bar of every page shows them."""
    async with site(tenant, days=1) as it:
        tenant.database.do("UPDATE sources SET failures = 3")
        tenant.database.do("DELETE FROM sync_runs WHERE outcome <> 'failed'")
        page = await it.get("/sync/main")
        said = text_of(page)
    assert "Cannot be read" in said
    assert "the repository did not answer within 20 s . What was applied last keeps running." in said.replace(
        "s.", "s ."
    )
    assert "3 tries failed" in page


async def test_no_source_no_dead_end(tenant: Tenant) -> None:
    """Without sources the page says how to get one."""
    async with api(tenant) as it:
        said = text_of((await it.client.get("/sync")).text)
    assert "No source is set up." in said
    assert "./start --repo DIR" in said

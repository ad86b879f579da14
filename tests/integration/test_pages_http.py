"""Pages as answers: headers, caching, preferences, failures, and what strangers may make of them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from cron_observer_api.pages.preferences import safe_path
from support.api import api
from support.databases import Tenant
from support.pages import ids_of, links_of, site, stocked, text_of

PAGES = (
    "/",
    "/?timeline=table&range=24h",
    "/tasks",
    "/tasks/default/invoice-export",
    "/tasks/default/digest-eu?tab=schedule",
    "/tasks/default/digest-eu?tab=statistics",
    "/tasks/default/digest-eu?tab=definition",
    "/tasks/default/adhoc-cleanup?tab=definition",
    "/tasks/default/invoice-export?tab=report",
    "/tasks/default/churn-score?tab=schedule",
    "/sync",
    "/sync/main",
)


async def test_every_page_keeps_the_policy(tenant: Tenant) -> None:
    """Each page forbids everything but its own files, has no duplicate id, and carries nothing inline."""
    async with site(tenant) as it:
        known = it.company.known
        paths = [*PAGES, f"/?date={it.company.now:%Y-%m-%d}", *(f"/executions/{one}" for one in known.values())]
        for path in paths:
            answer = await it.client.get(path)
            assert answer.status_code == 200, (path, answer.text[:300])
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert not re.search(r"\sstyle=|<style|\son[a-z]+=\"|<script(?![^>]*\ssrc=\"/static/)", answer.text), path
            named = ids_of(answer.text)
            assert len(named) == len(set(named)), path


async def test_every_link_leads_somewhere(tenant: Tenant) -> None:
    """Each link of each page leads to a page, to an anchor that exists, or to the forge."""
    async with site(tenant, days=2) as it:
        seen: dict[str, str] = {}
        waiting = [*PAGES, f"/executions/{it.company.known['running']}", f"/executions/{it.company.known['failed']}"]
        for path in waiting:
            seen[path] = await it.get(path)
        for path, page in list(seen.items()):
            for link in links_of(page):
                if link.startswith(("https://github.com/acme-example/", "/preferences")):
                    continue
                place, _, anchor = link.partition("#")
                if place.startswith("/api/"):
                    assert (await it.client.get(place)).status_code == 200, link
                    continue
                target = place or path
                if target not in seen and len(seen) < 250:
                    seen[target] = await it.get(target)
                if anchor and target in seen:
                    assert anchor in ids_of(seen[target]), (path, link)


async def test_the_same_page_is_not_sent_twice(tenant: Tenant) -> None:
    """A page that has not changed is answered with 304 and no body."""
    async with site(tenant, days=1) as it:
        path = "/tasks/default/legacy-import?tab=report"
        first = await it.client.get(path)
        again = await it.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == "private, no-cache"


async def test_files_are_cached_by_their_names(tenant: Tenant) -> None:
    """A file asked for by its hash or version is kept for ever; by another name it is asked for again."""
    async with api(tenant) as it:
        page = (await it.client.get("/")).text
        (style,) = re.findall(r'href="(/static/app\.css\?v=\w+)"', page)
        named = await it.client.get(style)
        stale = await it.client.get("/static/app.css?v=0")
        vendored = await it.client.get("/static/vendor/htmx-4.0.1/htmx.min.js")
        same = await it.client.get(style, headers={"If-None-Match": named.headers["etag"]})
        lost = [await it.client.get(f"/static/{path}") for path in ("nothing", "../app.py", "..%2fapp.py", "vendor")]
    assert named.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert vendored.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert stale.headers["cache-control"] == "no-cache"
    assert named.headers["content-type"] == "text/css; charset=utf-8"
    assert vendored.headers["content-type"].startswith("text/javascript")
    assert (same.status_code, same.content) == (304, b"")
    assert {answer.status_code for answer in lost} == {404}


async def test_preferences_are_cookies_that_the_server_reads(tenant: Tenant) -> None:
    """A link sets theme, zone and keys, leads back, and the next page is drawn by them."""
    async with api(tenant) as it:
        plain = (await it.client.get("/tasks")).text
        set_ = await it.client.get("/preferences?theme=dark&zone=Asia/Kolkata&keys=off&next=/tasks?q=a")
        page = (await it.client.get("/tasks")).text
        nonsense = await it.client.get("/preferences?theme=pink&zone=Mars&keys=maybe")
    assert 'data-theme="system" data-keys="on" data-zone="UTC"' in plain
    assert (set_.status_code, set_.headers["location"]) == (303, "/tasks?q=a")
    assert all("SameSite=lax" in one for one in set_.headers.get_list("set-cookie"))
    assert 'data-theme="dark" data-keys="off" data-zone="Asia/Kolkata"' in page
    assert [one.split(";")[0] for one in nonsense.headers.get_list("set-cookie")] == ["co_zone=UTC"]


@pytest.mark.parametrize(
    "target", [None, "", "//evil.example", "https://evil.example", "/\\evil.example", "tasks", "/a\r\nSet-Cookie: x=1"]
)
def test_preferences_never_lead_away(target: str | None) -> None:
    """Whatever `next` says, the way back is on this server."""
    assert safe_path(target) == "/"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/tasks/default/nothing", "There is no task default/nothing"),
        ("/tasks/other/invoice-export", "There is no task other/invoice-export"),
        ("/executions/not-an-id", "There is no such execution"),
        ("/executions/00000000-0000-8000-8000-000000000000", "There is no such execution"),
        ("/executions/not-an-id/log", "There is no such execution"),
        ("/sync/nothing", "There is no source nothing"),
    ],
)
async def test_what_is_not_there_is_said_on_a_page(tenant: Tenant, path: str, said: str) -> None:
    """A wrong address of a thing is answered with 404 and a page that leads on."""
    async with api(tenant) as it:
        answer = await it.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert said in text_of(answer.text)
    assert {urlsplit(link).path for link in links_of(answer.text)} == {"/", "/tasks", "/sync"}


#: Query strings that no page ever wrote.
HOSTILE = (
    *("date=2026-13-45", "date=0001-01-01", "date=9999-12-31", "date=%00", "month=9999-13", "range=99h"),
    *("after=x", "after=2026-01-01T00:00:00_x", "after=2026-01-01T00:00:00+00:00_x", "status=%00", "timeline=x"),
    *("q=%00", "q='", "q=label:", "q=%22", "q=label:a=%25", "after=a/b", "after=%00/x", "tab=%3Cscript%3E"),
    *("from=-1", "from=99999999999999", "level=LOUD", "attempt=x", "attempt=99", "q=%3Cscript%3E", "q=%1b"),
    *("before=x", "after=0:", "after=2:a", "after=1:%00", "date=2026-11-21&date=x", "q=" + "a:" * 900),
)


async def test_strange_addresses_are_taken_calmly(tenant: Tenant) -> None:
    """Nonsense in an address counts as nothing said: every page still answers, and echoes no markup."""
    company = stocked(tenant, days=1)
    paths = ("/", "/tasks", "/tasks/default/invoice-export", "/sync", "/sync/main")
    async with api(tenant) as it:
        for path in (*paths, f"/executions/{company.known['running']}", f"/executions/{company.known['running']}/log"):
            for query in HOSTILE:
                answer = await it.client.get(f"{path}?{query}")
                assert answer.status_code == 200, (path, query, answer.text[:200])
                assert "<script>" not in answer.text


async def test_pages_need_a_key_off_loopback(tenant: Tenant) -> None:
    """Bound to a network, a page asks for a credential; the files of the pages do not."""
    async with api(tenant, host="0.0.0.0") as it:  # noqa: S104  nothing listens
        refused = await it.client.get("/tasks")
        style = await it.client.get("/static/app.css")
        allowed = await it.client.get("/tasks", headers=await it.key("read"))
    assert (refused.status_code, style.status_code, allowed.status_code) == (401, 200, 200)
    assert refused.headers["content-type"] == "text/html; charset=utf-8"
    assert "WWW-Authenticate" in refused.headers

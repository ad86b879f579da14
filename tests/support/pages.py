"""Pages in tests: the real app on a company's data, asked as a browser would ask."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import httpx

from support import pages_data, pages_logs
from support.api import api
from support.databases import Tenant
from support.pages_company import Company
from support.rows import database_now
from support.statements import executed


@dataclass
class Site:
    """The pages of a company."""

    client: httpx.AsyncClient
    company: Company

    async def get(self, path: str, status: int = 200, **more: Any) -> str:
        """Return the HTML of a page."""
        answer = await self.client.get(path, **more)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:300])
        return answer.text


def stocked(tenant: Tenant, days: int = 4) -> Company:
    """Fill the tenant's database with a company's last days."""
    company = pages_data.make(tenant, database_now(tenant.database), days=days)
    pages_data.insert(tenant.database, company)
    pages_logs.add_logs(tenant.database, company)
    return company


@asynccontextmanager
async def site(tenant: Tenant, days: int = 4) -> AsyncIterator[Site]:
    """Run the app on a company's data, without a socket."""
    company = stocked(tenant, days)
    async with api(tenant) as it:
        yield Site(it.client, company)


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements that run in the block, those that open transactions aside."""
    seen: list[str] = []
    with executed() as all_of_them:
        yield seen
    seen += [statement for statement, _ in all_of_them if not statement.startswith("BEGIN; ")]


class _Reader(HTMLParser):
    """Collects the text of a page, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and ids."""
        named = dict(attrs)
        if tag == "a" and named.get("href"):
            self.links.append(str(named["href"]))
        if named.get("id"):
            self.ids.append(str(named["id"]))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.words.append(data)


def text_of(page: str) -> str:
    """Return what a page says, with single blanks."""
    reader = _Reader()
    reader.feed(page)
    return re.sub(r"\s+", " ", " ".join(reader.words))


def links_of(page: str) -> list[str]:
    """Return where a page leads."""
    reader = _Reader()
    reader.feed(page)
    return reader.links


def older(page: str) -> str | None:
    """Return where a list goes on behind its last row; None at its end.

    Links to other months, which a page has while its history spans more than one, keep the place in the list.
    """
    return next((link for link in links_of(page) if "after=" in link and "month=" not in link), None)


def ids_of(page: str) -> list[str]:
    """Return the ids of a page's elements."""
    reader = _Reader()
    reader.feed(page)
    return reader.ids


def part(page: str, identity: str) -> str:
    """Return a page from the element with an id on, up to the next section."""
    start = page.index(f'id="{identity}"')
    end = page.find("<section", start)
    return page[start : end if end > 0 else None]

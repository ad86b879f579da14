"""Logs as workers and scripts send them: each line once, hostile bytes kept harmless, text of any length."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from support.api import Api, served
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task


@dataclass
class Log:
    """The log of one execution that a worker or a script has taken."""

    it: Api
    id: str
    fence: int | None

    async def append(self, first: Any, *messages: str, **more: Any) -> httpx.Response:
        """Send lines from number `first` on."""
        entries = [{"level": "INFO", "message": one} | more for one in messages]
        body = {"fence": self.fence, "first_seq": first, "entries": entries}
        return await self.it.call("POST", f"/sdk/executions/{self.id}/logs", "report", json=body)

    async def upload(
        self, content: Any, kind: str = "text/plain", method: str = "POST", **query: Any
    ) -> httpx.Response:
        """Send text as it is."""
        given = {"fence": self.fence} | query if self.fence else query
        headers = {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if query.pop("packed", False) else {})
        given.pop("packed", None)
        path = f"/sdk/executions/{self.id}/logs/raw"
        return await self.it.call(method, path, "report", content=content, params=given, headers=headers)

    async def items(self, query: str = "") -> list[dict[str, Any]]:
        """Read lines back."""
        items: list[dict[str, Any]] = (await self.it.call("GET", f"/executions/{self.id}/logs?{query}", "read")).json()[
            "items"
        ]
        return items

    async def texts(self) -> list[str]:
        """Read the messages back."""
        return [item["message"] for item in await self.items()]


@asynccontextmanager
async def taken(tenant: Tenant, *, patch: bool = False) -> AsyncIterator[Log]:
    """Serve an execution that is claimed, or taken by PATCH."""
    slot = make_slot(tenant, make_task(tenant), database_now(tenant.database) - timedelta(seconds=1))
    async with served(tenant) as it:
        if patch:
            began = await it.call("PATCH", f"/sdk/executions/{slot}", "report", json={"status": "RUNNING"})
            assert began.status_code == 200, began.text
            yield Log(it, str(slot), None)
            return
        (given,) = (await it.call("POST", "/sdk/claims", "report", json={"worker": "w"})).json()["executions"]
        yield Log(it, given["id"], given["fence"])


async def test_the_numbers_of_lines(tenant: Tenant) -> None:
    """A number below 0 or beyond 2^31 is refused, a gap told; a repeat is dropped, with the same bytes or others."""
    async with taken(tenant) as log:
        for wrong in (-1, 1 << 63, 1 << 31, "0", 0.5, None):
            assert (await log.append(wrong, "x")).status_code == 400, wrong
        gap = await log.append(3, "x")
        assert (gap.status_code, gap.json()["code"], gap.json()["expected_seq"]) == (409, "log_gap", 0)
        first = await log.append(0, "a", "b")
        again = await log.append(0, "a", "b")
        other = await log.append(0, "A", "B", "c")
        assert [one.json()["next_seq"] for one in (first, again, other)] == [2, 2, 3]
        assert await log.texts() == ["a", "b", "c"]


HOSTILE = {
    "carriage return": "one\r\ntwo",
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "osc 8": "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "osc 52": "\x1b]52;c;cm0gLXJm\x07",
    "script": "<script>alert(1)</script></pre><!--",
    "separators": "a\u2028b\u2029c\x85d",
}


async def test_hostile_lines_come_back_as_they_were(tenant: Tenant) -> None:
    """Whatever a line holds, JSON returns it exactly, and the page shows it as text."""
    async with taken(tenant) as log:
        assert (await log.append(0, *HOSTILE.values())).status_code == 202
        assert await log.texts() == list(HOSTILE.values())
        page = (await log.it.client.get(f"/executions/{log.id}")).text
    assert "<script>alert" not in page
    assert not any(sign in page for sign in ("\x1b", "\u2028", "\x07"))


async def test_text_is_split_and_what_is_no_utf8_flagged(tenant: Tenant) -> None:
    """Newlines end lines, CRLF as well; 16 MB without any become lines of 16 KiB; bad bytes are replaced."""
    async with taken(tenant) as log:
        sent = b"plain\r\n\x1b[1mbold\x1b[0m\nbad \xff\xfe byte\nnul \x00 kept\n\nlast"
        done = await log.upload(sent)
        assert done.status_code == 202, done.text
        assert done.json() == {"next_seq": 6, "next_offset": len(sent), "cancel_requested": False}
        items = await log.items()
        assert [item["message"] for item in items] == [
            "plain", "\x1b[1mbold\x1b[0m", "bad \ufffd\ufffd byte", "nul \x00 kept", "", "last"
        ]  # fmt: skip
        assert [item["flags"] for item in items] == [[], [], ["replaced"], [], [], []]
        done = await log.upload("é".encode() * (8 << 20))
        assert done.json()["next_seq"] == 6 + 1024
        items = await log.items("from_seq=6&limit=1000")
        assert {item["message"] for item in items} == {"é" * 8192}
        assert [item["flags"] for item in items[:3]] == [[], ["continued"], ["continued"]]


async def test_an_upload_is_resumed_where_it_broke_off(tenant: Tenant) -> None:
    """With an offset, bytes that are stored already are dropped, a gap is refused, and half a line is kept back."""
    text = b"".join(b"line %d\n" % n for n in range(1000))
    async with taken(tenant) as log:
        first = await log.upload(text[:3000], offset=0, partial="true")
        taken_ = first.json()["next_offset"]
        assert 2990 < taken_ <= 3000
        assert text[:taken_].endswith(b"\n")
        gap = await log.upload(text[5000:], offset=5000)
        assert (gap.status_code, gap.json()["expected_offset"]) == (409, taken_)
        again = await log.upload(text, offset=0)
        whole = await log.upload(text, offset=0, method="PUT")
        assert again.json()["next_offset"] == whole.json()["next_offset"] == len(text)
        assert again.json()["next_seq"] == whole.json()["next_seq"] == 1000
        assert await log.texts() == [f"line {n}" for n in range(1000)]


async def test_two_uploads_of_the_same_text_store_it_once(tenant: Tenant) -> None:
    """A script that repeats its upload while the first still runs doubles no line and loses none."""
    text = b"".join(b"line %d of a longer text\n" % n for n in range(60_000))
    async with taken(tenant) as log:
        done = await asyncio.gather(*(log.upload(text, offset=0) for _ in range(3)))
        assert {one.json()["next_offset"] for one in done} == {len(text)}
        last = await log.items("from_seq=59000")
    assert [item["message"] for item in last] == [f"line {n} of a longer text" for n in range(59_000, 60_000)]


async def test_a_script_needs_no_fence(tenant: Tenant) -> None:
    """What PATCH has taken, text may be sent for without a fence, as curl sends it; what a worker claimed may not."""
    async with taken(tenant, patch=True) as log:
        done = await log.upload(b"hello\n", "application/x-www-form-urlencoded", level="WARN")
        assert done.status_code == 202, done.text
        assert [(item["level"], item["message"]) for item in await log.items()] == [("WARN", "hello")]
        none = await log.upload(b"")
        assert none.json()["next_offset"] == 6


async def test_what_a_worker_claimed_takes_text_under_its_fence_only(tenant: Tenant) -> None:
    """Without the fence, or with another one, nothing is stored."""
    async with taken(tenant) as log:
        log.fence = None
        assert (await log.upload(b"hello\n")).json()["code"] == "not_running"
        log.fence = 7
        assert (await log.upload(b"hello\n")).json()["code"] == "lease_lost"


async def test_objects_a_line(tenant: Tenant) -> None:
    """NDJSON brings level, time and fields; a wrong line is named by its number, and those before it are stored."""
    lines = [{"message": f"m{n}", "level": "WARN", "ts": "2026-11-21T10:00:00Z", "fields": {"n": n}} for n in range(3)]
    raw = "\n".join(json.dumps(one) for one in lines).encode() + b'\n{"message": "plain"}\n'
    async with taken(tenant) as log:
        done = await log.upload(gzip.compress(raw), "application/x-ndjson", packed=True)
        assert done.status_code == 202, done.text
        items = await log.items()
        assert [(item["message"], item["level"], item["fields"]) for item in items] == [
            *((f"m{n}", "WARN", {"n": n}) for n in range(3)),
            ("plain", "INFO", None),
        ]
        for wrong in (b'{"message": "a", "message": "b"}', b'{"text": "a"}', b"[]", b'{"message": 1}', b"\xff"):
            refused = await log.upload(b'{"message": "a"}\n' + wrong, "application/x-ndjson")
            assert refused.status_code == 400, wrong
            assert refused.json()["pointer"].startswith("/1"), refused.text
        assert len(await log.items()) == 4


async def test_compressed_text_is_read_within_bounds(tenant: Tenant) -> None:
    """gzip is read, in several members; what inflates without end is refused, and so is what is no gzip."""
    async with taken(tenant) as log:
        done = await log.upload(gzip.compress(b"a\n") + gzip.compress(b"b\n"), packed=True)
        assert (done.status_code, await log.texts()) == (202, ["a", "b"])
        assert (await log.upload(gzip.compress(bytes(64 << 20)), packed=True)).status_code == 413
        assert (await log.upload(b"nothing of the kind", packed=True)).status_code == 400
        assert (await log.upload(gzip.compress(b"a\n" * 99)[:-9], packed=True)).status_code == 400
        assert (await log.upload(b"x", "image/png")).status_code == 415


@pytest.mark.parametrize("path", ["logs", "logs/raw"])
async def test_logs_of_others_are_not_there(tenant: Tenant, path: str) -> None:
    """An execution that is not there has no log to write or to read."""
    async with taken(tenant) as log:
        gone = Log(log.it, "01a1ffe2-a811-8a2f-910a-25bb01daa392", 1)
        sent = await (gone.append(0, "x") if path == "logs" else gone.upload(b"x"))
        assert sent.status_code == 404
        for read in ("logs", "logs.txt", "logs.ndjson.gz", "logs/matches?q=x"):
            assert (await log.it.call("GET", f"/executions/{gone.id}/{read}", "read")).status_code == 404


async def test_times_of_clients(tenant: Tenant) -> None:
    """A worker's clock is advice: what no work of ours can have is refused with its place, the server's time stays."""
    async with taken(tenant) as log:
        for wrong in ("1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z"):
            refused = await log.append(0, "x", ts=wrong)
            assert (refused.status_code, refused.json()["pointer"]) == (400, "/entries/0/ts"), wrong
        assert (await log.append(0, "x", ts="2100-01-01T00:00:00.123456+01:00")).status_code == 202
        (item,) = await log.items()
    assert item["ts"] == "2099-12-31T23:00:00.123Z"
    assert item["received_at"] < "2099"


async def test_keys_that_come_twice_are_refused(tenant: Tenant) -> None:
    """Whoever reads fast must not read less strictly: every way to write a key twice is found."""
    async with taken(tenant) as log:
        head = f'{{"fence": {log.fence}, "first_seq": 0, "entries": ['
        other = '{"level": "INFO", "\\u006dessage": "b"}'
        for line in (
            '{"level": "INFO", "message": "a", "message": "b"}',
            '{"level": "INFO", "message": "a", "\\u006dessage": "b"}',
            f'{{"level": "INFO", "message": "a", "message": "b"}}, {other}',
            '{"level": "INFO", "message": "a", "ts": null, "ts": "2026-01-01T00:00:00Z"}',
            '{"level": "INFO", "message": "a", "fields": {"x": 1, "x": 2}}',
            '{"level": "INFO", "message": "a", "fields": {"x": NaN}}',
            '{"level": "INFO", "message": "nul \\u0000"}',
            '{"level": "INFO", "message": "half \\ud800"}',
        ):
            headers = {"Content-Type": "application/json"}
            path = f"/sdk/executions/{log.id}/logs"
            sent = await log.it.call("POST", path, "report", content=f"{head}{line}]}}", headers=headers)
            assert sent.status_code == 400, line
        odd = '{"level": "INFO", "message": "message", "fields": {"level": {"ts": [null, "\\u0041"]}}}'
        sent = await log.it.call("POST", path, "report", content=f"{head}{odd}]}}", headers=headers)
        assert sent.status_code == 202, sent.text
        (item,) = await log.items()
    assert (item["message"], item["fields"]) == ("message", {"level": {"ts": [None, "A"]}})

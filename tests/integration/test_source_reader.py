"""Manifests are parsed in a child with limits: whatever it dies of, the reconciler lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cron_observer.errors import SourceError
from cron_observer.manifest import ics
from cron_observer.model import ParsedFile
from cron_observer.source import Entry, child, reader
from cron_observer.source.reader import Reader
from cron_observer.source.spec import UNREADABLE
from support.databases import Tenant
from support.repositories import Repository, following, manifest
from support.worlds import running, until


def parse(one: Reader, text: str | bytes, path: str = "a.yaml", mode: str = "100644") -> ParsedFile:
    """Parse one file."""
    data = text.encode() if isinstance(text, str) else text
    ((_, _, parsed),) = one.parse([(Entry(path, mode, "0" * 40, len(data)), data)])
    return parsed


def stand_in(tmp_path: Path, body: str) -> tuple[str, ...]:
    """Return the command of a child that says hello like the real one, and then runs `body`."""
    script = tmp_path / "child.py"
    script.write_text(
        "import socket, struct, sys, os, time, resource\n"
        "s = socket.socket(fileno=int(sys.argv[1]))\n"
        "s.sendall(struct.pack('!I', 0))\n"
        f"s.recv(4)\n{body}\n"
    )
    return sys.executable, str(script)


def test_the_child_is_kept_and_answers_as_the_parser_does() -> None:
    """The verdict is that of the parser, and one child serves many files."""
    from cron_observer import manifest as rules

    one = Reader()
    try:
        pids = set()
        for text in (
            manifest("alpha"),
            "a: [",
            "",
            "\x00",
            manifest("alpha", labels="a: b", payload="{x: [1, 2.5, null]}"),
        ):
            direct = rules.parse("a.yaml", text.encode())
            parsed = parse(one, text)
            assert list(parsed.findings) == list(direct.findings)
            assert list(parsed.tasks) == list(direct.tasks)
            assert parsed.parseable == direct.parseable
            pids |= {child.pid for child in one._children}
        assert len(pids) == 1
    finally:
        one.close()


@pytest.mark.parametrize("bad", ["[" * 200_000, "{a: " * 60_000, "- " * 100_000, "? " * 100_000, "&a " * 80_000])
def test_a_file_that_kills_naive_parsers_is_a_finding(bad: str) -> None:
    """Deep nesting ends as a finding in well under the limit, and the next file is read."""
    one = Reader()
    try:
        one.start()
        began = time.monotonic()
        parsed = parse(one, bad)
        assert not parsed.parseable
        assert parsed.findings
        assert time.monotonic() - began < child.WALL_SECONDS / 2
        assert parse(one, manifest("alpha")).tasks[0].name == "alpha"
    finally:
        one.close()


@pytest.mark.parametrize(
    "body",
    [
        "os._exit(1)",
        "os.kill(os.getpid(), 11)",
        "s.sendall(struct.pack('!I', 5) + b'nojsn')",
        "s.sendall(struct.pack('!I', 2) + b'{}')",
        "s.sendall(struct.pack('!I', 4000000000)); time.sleep(60)",
        "s.sendall(b'x')",
        "time.sleep(60)",
        "[0 for _ in iter(int, 1)]",
    ],
)
def test_a_child_that_dies_hangs_or_lies_costs_one_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """However the child fails, the file gets a finding that does not say what its tasks are, and the child is gone."""
    monkeypatch.setattr(child, "WALL_SECONDS", 0.5)
    one = Reader(command=stand_in(tmp_path, body))
    try:
        parsed = parse(one, manifest("alpha"))
        assert (parsed.parseable, list(parsed.tasks)) == (False, [])
        assert [finding.code for finding in parsed.findings] == ["CO1010"]
        assert [child.pid for child in one._children] == [None]
    finally:
        one.close()


@pytest.mark.parametrize(
    "body",
    [
        "bytearray(2_000_000_000)",
        "open('/tmp/written-by-the-parser', 'w').write('x' * 10000)",
        "[os.open('/dev/null', 0) for _ in range(100)]",
    ],
)
def test_the_limits_bind(body: str) -> None:
    """Memory, file sizes and open files of a process that limits itself are bounded."""
    program = (
        "from cron_observer.source.parsing import limit\nimport os\nlimit()\n"
        f"try:\n    {body}\nexcept (MemoryError, OSError) as e:\n    raise SystemExit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 7


def test_a_child_that_is_killed_between_files_is_replaced() -> None:
    """A child that vanished costs no file anything: the next one gets a child of its own."""
    one = Reader()
    try:
        parse(one, manifest("alpha"))
        (pid,) = (child.pid for child in one._children)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert parse(one, manifest("alpha")).tasks[0].name == "alpha"
    finally:
        one.close()


def test_closing_ends_the_child_and_what_it_works_on(tmp_path: Path) -> None:
    """A reader that is closed in the middle of a file says so, and does not blame the file."""
    one = Reader(command=stand_in(tmp_path, "time.sleep(60)"))
    reasons: list[str] = []

    def work() -> None:
        try:
            parse(one, manifest("alpha"))
        except SourceError as error:
            reasons.append(error.reason)

    thread = threading.Thread(target=work)
    thread.start()
    while (pid := next((child.pid for child in one._children), None)) is None:
        time.sleep(0.01)
    one.close()
    thread.join(60)
    assert reasons == ["Stopped"]
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(SourceError):
        parse(one, manifest("alpha"))


def test_the_child_goes_with_its_parent() -> None:
    """When the reconciler is killed, its parser ends by itself."""
    program = (
        "import time\nfrom cron_observer.source.reader import Reader\none = Reader()\none.start()\n"
        "print(one._children[0].pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
        parent.wait()
    until(lambda: not running(pid), "the parser ends")


def test_what_must_not_be_read_never_reaches_the_child() -> None:
    """Links, unreadable and huge files are judged by what they are."""
    one = Reader(command=("/nonexistent",))
    assert [parse(one, "", mode=mode).findings[0].code for mode in ("120000", "160000", UNREADABLE)] == [
        "CO1004",
        "CO1005",
        "CO1010",
    ]
    ((_, _, huge),) = one.parse([(Entry("a.yaml", "100644", "0", 10**9), b"")])
    assert huge.findings[0].code == "CO1001"


async def test_a_file_that_kills_the_parser_harms_no_other(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every parse dies, tasks stay as they are; when the parser works again, the files are read again."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        (parser,) = it.reconciler._reader._children
        monkeypatch.setattr(parser, "_command", stand_in(tmp_path, "os._exit(9)"))
        parser.end()
        repository.push({"a.yaml": manifest("alpha", "1 1 * * *")})
        assert await it.sync() == "applied"
        assert it.task("alpha")["sync"] == "KEPT_LAST_GOOD"
        assert [finding["code"] for finding in it.findings()] == ["CO1010"]
        monkeypatch.undo()
        repository.push({"README.md": "words"})
        await it.sync()
        assert (it.task("alpha")["sync"], it.task("alpha")["generation"]) == ("SYNCED", 2)


ICS = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n%sEND:VCALENDAR\r\n"
EVENT = b"BEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20261224\r\nEND:VEVENT\r\n"


def days(one: Reader, data: bytes, mode: str = "100644", size: int | None = None) -> ics.CalendarFile:
    """Read one calendar file."""
    entry = Entry("a.ics", mode, "0" * 40, len(data) if size is None else size)
    ((_, found),) = one.calendars([(entry, data)])
    return found


def test_calendar_files_are_read_in_the_child_too() -> None:
    """What a calendar file holds comes back; what cannot be read holds nothing and says why."""
    one = Reader()
    try:
        assert days(one, ICS % EVENT) == {"dates": [["2026-12-24", "2026-12-24"]], "spans": [], "findings": []}
        for data, mode, size in (
            (b"no calendar", "100644", None),
            (b"", "120000", None),
            (b"", "100644", reader.MAX_CALENDAR_BYTES + 1),
        ):
            found = days(one, data, mode, size)
            assert (found["dates"], [one.code for one in found["findings"]]) == ([], ["CO1411"])
        assert parse(one, manifest("alpha")).tasks
    finally:
        one.close()


def test_a_calendar_file_that_kills_the_child_is_refused(tmp_path: Path) -> None:
    """It holds nothing, and the next file gets a new child."""
    one = Reader(command=stand_in(tmp_path, "os._exit(1)"))
    try:
        found = days(one, ICS % EVENT)
        assert (found["dates"], [one.code for one in found["findings"]]) == ([], ["CO1411"])
    finally:
        one.close()


def test_places_of_a_manifest_are_found() -> None:
    """A pointer leads to its line in the right document, or to the nearest value around it."""
    text = (
        manifest("alpha")
        + "---\n"
        + manifest("beta", group="night")
        + "    calendars:\n      exclude: [x,\n        y]\n"
    )
    one = Reader()
    try:
        found = one.lines(
            "a.yaml",
            text.encode(),
            [
                ("Task", "beta", "/spec/group"),
                ("Task", "beta", "/spec/schedule/calendars/exclude/1"),
                ("Task", "alpha", "/spec/schedule/calendars/exclude/1"),
                ("Calendar", "alpha", "/spec"),
            ],
        )
        assert found == [14, 19, 6, None]
    finally:
        one.close()

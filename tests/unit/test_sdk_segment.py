"""A file of the spool can always be read: whatever cut it off, whoever else wants it, however little room there is."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cron_observer_sdk.segment import Entry, LogEntry, Segment, log_line
from cron_observer_sdk.spool import Spool
from support.sdk_cli import environment

HEAD = {"v": 1, "task": "a/b"}


def entry(text: str) -> bytes:
    """Return a line of the log, encoded."""
    return f'{{"level":"INFO","message":"{text}"}}'.encode()


def filled(path: Path, lines: int) -> bytes:
    """Make a file with so many lines and an end; return its bytes."""
    made = Segment.create(path, HEAD)
    made.write([log_line(number, entry(f"line {number} ☃")) for number in range(lines)], durable=False)
    made.write([b'{"kind":"end","outcome":{"outcome":"finished"}}'], durable=True)
    made.close()
    return path.read_bytes()


def test_a_file_cut_off_at_any_byte_can_be_read(tmp_path: Path) -> None:
    """Every prefix holds the whole lines before the cut, and can be written on."""
    whole = filled(tmp_path / "whole.ndjson", 4)
    for size in range(len(whole) + 1):
        path = tmp_path / "cut.ndjson"
        path.write_bytes(whole[:size])
        taken = Segment.take(path)
        assert taken is not None
        kept = whole[:size].count(b"\n")
        assert len(list(taken.entries())) == kept
        taken.write([log_line(9, entry("on"))], durable=False)
        assert list(taken.entries())[kept:] == [LogEntry(9, entry("on"))]
        taken.delete()


def test_rubbish_ends_the_reading_and_nothing_else(tmp_path: Path) -> None:
    """What a lost page left in the middle hides what follows, not what came before."""
    path = tmp_path / "rubbish.ndjson"
    whole = filled(path, 3)
    place = whole.index(b'{"kind":"line","seq":2')
    path.write_bytes(whole[:place] + b"\x00" * 20 + b"\n" + whole[place:])
    taken = Segment.take(path)
    assert taken is not None
    assert [one for one in taken.entries() if isinstance(one, LogEntry)] == [
        LogEntry(number, entry(f"line {number} ☃")) for number in range(2)
    ]
    taken.close()


def test_a_file_has_one_holder(tmp_path: Path) -> None:
    """Nobody takes a file that is held, in this process or another; its holder's end frees it."""
    path = tmp_path / "held.ndjson"
    made = Segment.create(path, HEAD)
    assert Segment.take(path) is None
    program = f"from pathlib import Path\nfrom cron_observer_sdk.segment import Segment\n\
print(Segment.take(Path({str(path)!r})))"
    other = [sys.executable, "-c", program]
    assert subprocess.run(other, env=environment(None), capture_output=True, text=True).stdout == "None\n"
    made.close()
    taken = Segment.take(path)
    assert taken is not None
    taken.delete()
    assert Segment.take(path) is None


def test_a_forked_child_holds_nothing(tmp_path: Path) -> None:
    """A child that lives on does not keep its parent's file from being replayed."""
    path = tmp_path / "forked.ndjson"
    made = Segment.create(path, HEAD)
    (reader, tell), (wait, writer) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.write(tell, b".")
        os.read(wait, 1)
        os._exit(0)
    os.read(reader, 1)
    made.close()
    taken = Segment.take(path)
    os.close(writer)
    os.waitpid(child, 0)
    for descriptor in (reader, tell, wait):
        os.close(descriptor)
    assert taken is not None
    taken.close()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A write that does not fit is undone whole."""
    path = tmp_path / "full.ndjson"
    made = Segment.create(path, HEAD)
    made.write([log_line(0, entry("kept"))], durable=True)
    before = path.read_bytes()
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            made.write([log_line(1, entry("x" * 500))], durable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, action)
    assert path.read_bytes() == before
    made.write([log_line(1, entry("again"))], durable=True)
    assert [one.seq for one in made.entries() if isinstance(one, LogEntry)] == [0, 1]
    made.close()


def test_the_folder_is_ours_alone(tmp_path: Path) -> None:
    """The folder has mode 0700, its files 0600, also where it was open before."""
    folder = tmp_path / "state" / "spool"
    folder.mkdir(parents=True, mode=0o755)
    made = Spool(folder).create(HEAD)
    assert (folder.stat().st_mode & 0o777, made.path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert made.head() == {"kind": "head", **HEAD}
    made.close()


def test_the_oldest_is_dropped_and_counted(tmp_path: Path) -> None:
    """Beyond its size the spool drops its oldest files, beyond their age all of them; the tally says how many."""
    spool = Spool(tmp_path / "spool", max_bytes=9000)
    names = []
    for number in range(4):
        made = spool.create({**HEAD, "number": number})
        made.write([log_line(0, entry("x" * 4000))], durable=False)
        names.append(made.path)
        made.close()
    assert spool.waiting() == names[1:]
    assert spool.prune() == 1
    assert spool.waiting() == names[2:]
    assert {name: spool.dropped()[name] for name in ("files", "lines")} == {"files": 2, "lines": 2}
    os.utime(names[2], (0, 0))
    held = Segment.take(names[3])
    os.utime(names[3], (0, 0))
    assert held is not None
    assert spool.prune() == 1  # what a process holds stays
    assert spool.waiting() == names[3:]
    held.close()


def test_what_a_file_holds_is_told(tmp_path: Path) -> None:
    """The short view has task, lines and outcome, and the reason of what was set aside."""
    spool = Spool(tmp_path / "spool")
    made = spool.create({**HEAD, "started_at": "2026-11-21T02:30:00.000Z"})
    made.write([log_line(0, entry("one"))], durable=False)
    made.write([b'{"kind":"end","outcome":{"outcome":"failed"}}'], durable=True)
    made.set_aside("no such task")
    assert spool.waiting() == []
    (path,) = spool.refused()
    looked = spool.look(path)
    assert looked is not None
    assert looked[1:2] + looked[3:] == (
        "refused", "a/b", "2026-11-21T02:30:00.000Z", 1, "failed", "no such task"
    )  # fmt: skip
    assert spool.drop(path)
    assert spool.refused() == []


def test_entries_are_told_apart(tmp_path: Path) -> None:
    """A line of the log comes back byte for byte, beside the words about the run."""
    path = tmp_path / "kinds.ndjson"
    filled(path, 1)
    taken = Segment.take(path)
    assert taken is not None
    head, line, end = taken.entries()
    assert isinstance(head, Entry)
    assert isinstance(end, Entry)
    assert (head.kind, line, end.kind) == ("head", LogEntry(0, entry("line 0 ☃")), "end")
    taken.close()

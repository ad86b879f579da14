"""Many files are spread over several children: nobody waits for a file that kills, and nothing is mixed up."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cron_observer import manifest as rules
from cron_observer.errors import SourceError
from cron_observer.model import Context, Definition, ParsedFile
from cron_observer.source import Entry, child, reader
from cron_observer.source.child import Child
from cron_observer.source.parsing import FILES, Request
from cron_observer.source.reader import Reader
from support.repositories import manifest

File = tuple[Entry, bytes]

#: A child like the real one, but for what it dies of: words of a file that real files have not been found for.
_FRAIL = """
import os, signal, sys, time
from cron_observer.source import parsing
real = parsing.manifest.parse

def parse(path, data, **named):
    if b"# exit" in data:
        os._exit(3)
    if b"# crash" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"# hang" in data:
        time.sleep(600)
    if b"# eat" in data:
        bytearray(parsing.MEMORY)
    return real(path, data, **named)

parsing.manifest.parse = parse
parsing._serve(int(sys.argv[1]))
"""


def files(count: int, words: dict[int, str] | None = None) -> Iterator[File]:
    """Yield as many valid manifests, some of them with words that `_FRAIL` knows."""
    for number in range(count):
        data = (manifest(f"task-{number}") + (words or {}).get(number, "")).encode()
        yield Entry(f"{number}.yaml", "100644", f"{number:040}", len(data)), data


def frail(tmp_path: Path) -> tuple[str, ...]:
    """Return the command of such a child."""
    script = tmp_path / "frail.py"
    script.write_text(_FRAIL)
    return sys.executable, str(script)


def pids(one: Reader) -> list[int]:
    """Return the processes of a reader."""
    return [child.pid for child in one._children if child.pid is not None]


def gone(pid: int) -> bool:
    """Tell whether a process that was our child has been reaped."""
    return not Path(f"/proc/{pid}").exists()


def test_many_files_are_parsed_by_several_children_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts are those of the parser and come in the order of the files, good ones and bad ones."""
    monkeypatch.setattr(reader, "FILES_A_CHILD", 100)
    one = Reader(most=3)
    bad = {7: "x: [", 256: "bogus: 1\n", 1499: "\x00"}
    seen: set[int] = set()
    try:
        for number, (entry, data, parsed) in enumerate(one.parse(files(1500, bad))):
            assert entry.path == f"{number}.yaml"
            direct = rules.parse(entry.path, data)
            assert list(parsed.tasks) == list(direct.tasks)
            assert list(parsed.findings) == list(direct.findings)
            assert (number in bad) == bool(parsed.findings)
            seen.update(pids(one))
        assert len(seen) == 3
        assert len(pids(one)) == 1
    finally:
        one.close()


def test_few_files_start_one_child() -> None:
    """A push of some files costs no second process."""
    one = Reader(most=4)
    try:
        for count in (0, 1, 2, reader.BATCH_FILES + 1):
            assert len(list(one.parse(files(count)))) == count
            assert len(pids(one)) == min(count, 1)
    finally:
        one.close()


def test_files_that_kill_are_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a file kills its child, it alone gets a finding; the others of its batch, and of all batches, do not."""
    monkeypatch.setattr(child, "WALL_SECONDS", 2.0)
    monkeypatch.setattr(reader, "FILES_A_CHILD", 100)
    monkeypatch.setattr(reader, "BATCH_FILES", 40)
    killers = {0: "# exit\n", 41: "# crash\n", 42: "# crash\n", 170: "# eat\n", 171: "# hang\n", 399: "# exit\n"}
    one = Reader(command=frail(tmp_path), most=2)
    try:
        found = list(one.parse(files(400, killers)))
        assert [entry.path for entry, _, _ in found] == [f"{number}.yaml" for number in range(400)]
        for number, (_, _, parsed) in enumerate(found):
            if number in killers:
                assert ([one.code for one in parsed.findings], parsed.parseable) == (["CO1010"], False)
            else:
                assert ([task.name for task in parsed.tasks], list(parsed.findings)) == ([f"task-{number}"], [])
    finally:
        one.close()


def test_closing_ends_a_large_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is closed amidst many files says so at once and leaves no process behind."""
    monkeypatch.setattr(reader, "FILES_A_CHILD", 100)
    one = Reader(most=2)
    going = one.parse(files(10_000_000))
    for _ in range(1_000):
        next(going)
    known = pids(one)
    assert len(known) == 2
    one.close()
    with pytest.raises(SourceError) as told:
        for _ in going:
            pass
    assert told.value.reason == "Stopped"
    assert all(gone(pid) for pid in known)
    with pytest.raises(SourceError):
        list(one.parse(files(1_000)))


def test_closing_from_elsewhere_ends_a_child_that_hangs(tmp_path: Path) -> None:
    """Whoever waits for a file that hangs is told that the reader was closed."""
    one = Reader(command=frail(tmp_path), most=2)
    reasons: list[str] = []

    def work() -> None:
        try:
            list(one.parse(files(600, {300: "# hang\n"})))
        except SourceError as error:
            reasons.append(error.reason)

    thread = threading.Thread(target=work)
    thread.start()
    while not pids(one):
        thread.join(0.01)
    known = pids(one)
    one.close()
    thread.join(20)
    assert reasons == ["Stopped"]
    assert all(gone(pid) for pid in known)


def test_a_job_that_is_given_up_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes only some of the answers leaves a reader that serves the next one; an error of the files comes out."""
    monkeypatch.setattr(reader, "FILES_A_CHILD", 100)
    one = Reader(most=2)

    def broken() -> Iterator[File]:
        yield from files(700)
        raise SourceError("the mirror broke", reason="MirrorBroken", permanent=False)

    try:
        going = one.parse(files(5_000))
        for _ in range(600):
            next(going)
        del going
        with pytest.raises(SourceError, match="the mirror broke"):
            list(one.parse(broken()))
        assert len(list(one.parse(files(700)))) == 700
    finally:
        one.close()


def test_threads_get_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large and small jobs of several threads share the children; each gets its own files, in order."""
    monkeypatch.setattr(reader, "FILES_A_CHILD", 100)
    one = Reader(most=2)
    found: dict[int, list[str]] = {}

    def work(count: int) -> None:
        found[count] = [parsed.tasks[0].name for _, _, parsed in one.parse(files(count))]

    threads = [threading.Thread(target=work, args=[count]) for count in (1, 3, 600, 900, 1_200)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {count: [f"task-{number}" for number in range(count)] for count in (1, 3, 600, 900, 1_200)}
    finally:
        one.close()


def layered(timeout: str) -> Context:
    """Return a context whose Defaults give every task a timeout."""
    spec = {"spec": {"timeout": timeout}}
    return Context(layers=(Definition(kind="Defaults", name="d", spec=spec, path="d.yaml", line=3),))


def timeouts(found: Iterator[tuple[Entry, bytes, ParsedFile]]) -> set[str]:
    """Return the timeouts of all tasks."""
    return {task.spec["timeout"] for _, _, parsed in found for task in parsed.tasks}


def test_each_job_has_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of one job reach all of its files, in every child and in a new one, and none of another job."""
    monkeypatch.setattr(reader, "FILES_A_CHILD", 100)
    one = Reader(most=2)
    try:
        for context, timeout in ((layered("5m"), "5m"), (Context(), "1h"), (layered("7m"), "7m")):
            for count in (1, 700):
                assert timeouts(one.parse(files(count), context)) == {timeout}
        one._children[0].end()
        assert timeouts(one.parse(files(1), layered("7m"))) == {"7m"}
    finally:
        one.close()


def test_a_context_is_sent_once() -> None:
    """Only with the first request after it has changed, and again to a new process."""
    one = Child(child.COMMAND)
    entry, data = next(files(1))
    sent = []
    try:
        for context in (layered("5m"), layered("5m"), Context(), Context(), layered("5m")):
            request = Request([(entry.path, entry.mode, data)])
            assert FILES.decode(one.ask(request, context))[0].tasks
            sent.append(request.context is not None)
        one.end()
        request = Request([(entry.path, entry.mode, data)])
        one.ask(request, layered("5m"))
        assert [*sent, request.context is not None] == [True, False, True, False, True, True]
    finally:
        one.end()

"""Read manifests and calendar files in children with limits: what a stranger wrote must not hurt the reconciler.

A child is kept for the next files, and replaced when it dies or hangs; the file that it died of gets a finding. Many
files are spread over several children, in batches; the answers keep the order of the files.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import chain
from typing import Final

import msgspec

from cron_observer import manifest
from cron_observer.errors import SourceError
from cron_observer.manifest import ics, rules
from cron_observer.manifest.document import NOTHING
from cron_observer.manifest.files import finding
from cron_observer.model import Context, ParsedFile
from cron_observer.source.child import COMMAND, Child, Died
from cron_observer.source.parsing import DAYS, FILES, LINES, Answer, Place, Request
from cron_observer.source.refusals import refused
from cron_observer.source.spec import Entry

#: Children of a reader at most, where there are processors for them.
MOST_CHILDREN: Final = 4
#: Bytes and files of a batch: as much as the largest file alone, so that the limits of a file suit it.
BATCH_BYTES: Final = manifest.MAX_FILE_BYTES
BATCH_FILES: Final = 256
#: Files of one call that have been given out before the next child is started: starting one takes as long as these do.
FILES_A_CHILD: Final = 2_000

#: Bytes of a calendar file, which may hold twenty thousand events.
MAX_CALENDAR_BYTES: Final = 5 * 1024 * 1024

_File = tuple[Entry, bytes]


class Reader:
    """Parses files. Blocks; safe from several threads, which take turns by batches."""

    def __init__(self, *, command: Iterable[str] = COMMAND, most: int | None = None) -> None:
        """Nothing is started yet. `most` children are started; one for each processor, but at most four, by default."""
        self._command = tuple(command)
        self._most = most or max(1, min(MOST_CHILDREN, len(os.sched_getaffinity(0))))
        self._turn = threading.Condition()
        self._children: list[Child] = []
        self._free: list[Child] = []  # the one that served last, last
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def start(self) -> None:
        """Start the first child ahead of the first file."""
        with contextlib.suppress(Died, SourceError), self._lent() as child:
            child.start()

    def parse(self, files: Iterable[_File], context: Context = NOTHING) -> Iterator[tuple[Entry, bytes, ParsedFile]]:
        """Give the verdict on each file, in order; one that kills a child is refused, the others are parsed.

        Tasks are composed with the layers of `context`. No more than a few batches of `files` are read ahead of what
        is taken. Raises `SourceError` (``Stopped``) when the reader is closed meanwhile.
        """
        batches = _batches(files)
        first, second = next(batches, None), next(batches, None)
        if first is None:
            return
        if second is None:
            yield from _beside(first, self._parsed(first, context, 1))
            return
        given: deque[tuple[list[_File], Future[list[ParsedFile]]]] = deque()
        count = 0
        try:
            for batch in chain((first, second), batches):
                children = min(self._most, 1 + count // FILES_A_CHILD)
                count += len(batch)
                given.append((batch, self._submitted(batch, context, children)))
                if len(given) > children + 2:
                    yield from _answered(*given.popleft())
            while given:
                yield from _answered(*given.popleft())
        finally:
            for _, answer in given:
                answer.cancel()
            self._rest()

    def _submitted(self, batch: list[_File], context: Context, children: int) -> Future[list[ParsedFile]]:
        with self._turn:
            if self._closed:
                raise _stopped()
            if self._threads is None:
                # One more than children: while it decodes an answer, its child has the next batch already.
                self._threads = ThreadPoolExecutor(self._most + 1, thread_name_prefix="parse")
            return self._threads.submit(self._parsed, batch, context, children)

    def _parsed(self, batch: list[_File], context: Context, children: int) -> list[ParsedFile]:
        """Parse a batch: all at once, and if its child dies of it, file by file."""
        verdicts = [refused(entry, data) for entry, data in batch]
        asked = [file for file, verdict in zip(batch, verdicts, strict=True) if verdict is None]
        answers: Iterable[ParsedFile] | None = None
        if len(asked) > 1:
            with contextlib.suppress(Died):
                answers = self._together(asked, context, children)
        if answers is None:
            answers = (self._alone(file, context) for file in asked)
        following = iter(answers)
        return [verdict or next(following) for verdict in verdicts]

    def _alone(self, file: _File, context: Context) -> ParsedFile:
        answer = self._one(file, FILES, context=context)
        if answer:
            return answer[0]
        message = "the file could not be parsed within the limits of memory and time"
        hint = "simplify it, or split it into several files"
        found = finding(rules.UNREADABLE, file[0].path, message, hint)
        return ParsedFile(path=file[0].path, findings=(found,), parseable=False)

    def calendars(self, files: Iterable[_File]) -> Iterator[tuple[Entry, ics.CalendarFile]]:
        """Give what each calendar file holds; one that cannot be read holds nothing and says why.

        Raises `SourceError` (``Stopped``) when the reader is closed meanwhile.
        """
        for entry, data in files:
            if not entry.mode.startswith("100"):
                message = "this is no regular file"
                found = finding(rules.BAD_CALENDAR_FILE, entry.path, message, "commit the file itself")
            elif (entry.size or len(data)) > MAX_CALENDAR_BYTES:
                message = f"the file has more than {MAX_CALENDAR_BYTES:,} bytes"
                found = finding(rules.BAD_CALENDAR_FILE, entry.path, message, "remove old events from it")
            elif (held := self._one((entry, data), DAYS)) is not None:
                yield entry, held
                continue
            else:
                message = "the file could not be read within the limits of memory and time"
                found = finding(rules.BAD_CALENDAR_FILE, entry.path, message, "simplify it")
            yield entry, ics.CalendarFile(dates=[], spans=[], findings=[found])

    def lines(self, path: str, data: bytes, places: Sequence[Place]) -> list[int | None]:
        """Return the line of each place of a manifest, None where it is not found."""
        found = self._one((Entry(path, "100644", ""), data), LINES, list(places))
        return [None] * len(places) if found is None else found

    def _one(
        self,
        file: _File,
        answers: msgspec.json.Decoder[Answer],
        places: Sequence[Place] = (),
        context: Context = NOTHING,
    ) -> Answer | None:
        """Let a child read one file; None when it dies of it."""
        for again in (False, True):
            with self._lent() as child:
                if again:  # that child had served before, and may have died of something else: now it gets a new one
                    child.end()
                served = child.pid is not None
                with contextlib.suppress(Died):
                    return self._answer(child, file, answers, places, context)
            if not served:
                break
        return None

    def _together(self, files: list[_File], context: Context, children: int) -> list[ParsedFile]:
        with self._lent(children) as child:
            answer = self._raw(child, _request(files), context)
        # Decoded while the child has the next batch.
        try:
            found = FILES.decode(answer)
        except msgspec.MsgspecError as error:
            raise Died from error
        if len(found) != len(files):
            raise Died
        return found

    def _answer(
        self,
        child: Child,
        file: _File,
        answers: msgspec.json.Decoder[Answer],
        places: Sequence[Place],
        context: Context,
    ) -> Answer:
        answer = self._raw(child, _request([file], places), context)
        try:
            return answers.decode(answer)
        except msgspec.MsgspecError as error:
            child.end()
            raise Died from error

    def _raw(self, child: Child, request: Request, context: Context) -> bytes:
        try:
            return child.ask(request, context)
        except Died:
            if self._closed:
                raise _stopped() from None
            raise

    @contextlib.contextmanager
    def _lent(self, children: int = 1) -> Iterator[Child]:
        """Wait for a child that nobody uses; start another one if there are fewer than `children`."""
        with self._turn:
            while not self._free and len(self._children) >= children and not self._closed:
                self._turn.wait()
            if self._closed:
                raise _stopped()
            if not self._free:
                self._children.append(Child(self._command))
                self._free.append(self._children[-1])
            child = self._free.pop()
        try:
            yield child
        finally:
            with self._turn:
                if self._closed:
                    child.end()
                self._free.append(child)
                self._turn.notify()

    def _rest(self) -> None:
        """Keep one child, and give back the memory of the others that nobody uses."""
        with self._turn:
            while len(self._children) > 1 and self._free:
                child = self._free.pop()
                self._children.remove(child)
                child.end()
            self._turn.notify_all()

    def close(self) -> None:
        """End the children, also in the middle of a file."""
        with self._turn:
            self._closed = True
            for child in self._children:
                child.kill()
            for child in self._free:
                child.end()
            threads = self._threads
            self._turn.notify_all()
        if threads is not None:
            threads.shutdown(cancel_futures=True)


def _stopped() -> SourceError:
    return SourceError("the reconciler is stopping", reason="Stopped", permanent=False)


def _batches(files: Iterable[_File]) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for file in files:
        if batch and (size + len(file[1]) > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += len(file[1])
    if batch:
        yield batch


def _request(files: Sequence[_File], places: Sequence[Place] = ()) -> Request:
    return Request([(entry.path, entry.mode, data) for entry, data in files], list(places))


def _answered(batch: list[_File], answer: Future[list[ParsedFile]]) -> Iterator[tuple[Entry, bytes, ParsedFile]]:
    try:
        return _beside(batch, answer.result())
    except CancelledError:
        raise _stopped() from None


def _beside(batch: list[_File], parsed: list[ParsedFile]) -> Iterator[tuple[Entry, bytes, ParsedFile]]:
    return ((entry, data, one) for (entry, data), one in zip(batch, parsed, strict=True))

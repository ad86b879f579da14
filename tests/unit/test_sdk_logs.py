"""The log of an execution arrives whole and in order, and what cannot arrive is said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cron_observer_sdk.errors import ApiError, BadRequest, LeaseLost, LogGap, TooLarge, Unavailable
from cron_observer_sdk.lines import make_lines
from cron_observer_sdk.logs import LogStream


class Shelf:
    """Stores entries as the server does; `trouble` is asked before each request."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.requests: list[tuple[int, int]] = []  #: (first_seq, count)
        self.answer_lost = 0
        self.refuse_over = 10**9
        self.poison = ""
        self.refuse_fields = False
        self.down = threading.Event()
        self.changed = threading.Condition()

    @property
    def messages(self) -> list[str]:
        """What is stored."""
        with self.changed:
            return [entry["message"] for entry in self.entries]

    def send(self, first: int, encoded: list[bytes], _timeout: float) -> dict[str, Any]:
        """Store what is new."""
        if self.down.is_set():
            raise Unavailable("down")
        with self.changed:
            self.requests.append((first, len(encoded)))
            entries = [json.loads(entry) for entry in encoded]
            if len(entries) > self.refuse_over:
                raise TooLarge("too many", status=413)
            if self.poison and any(self.poison in entry["message"] for entry in entries):
                raise BadRequest("poison", status=400)
            if self.refuse_fields and any("fields" in entry for entry in entries):
                raise BadRequest("fields", status=400)
            if first > len(self.entries):
                raise LogGap("gap", status=409, code="log_gap", problem={"expected_seq": len(self.entries)})
            self.entries.extend(entries[len(self.entries) - first :])
            self.changed.notify_all()
            if self.answer_lost:
                self.answer_lost -= 1
                raise Unavailable("the answer was lost")
            return {"next_seq": len(self.entries), "cancel_requested": False}

    def wait_for(self, count: int) -> None:
        """Wait until so many entries are stored."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.entries) >= count, 20), self.messages


@contextmanager
def stream(shelf: Shelf, **options: Any) -> Iterator[LogStream]:
    """Open a stream onto the shelf."""
    made = LogStream(**{"interval": 0.01, **options})
    made.open(shelf.send, lambda _: None, lambda error: not isinstance(error, Unavailable))
    try:
        yield made
    finally:
        made.stop()


def say(log: LogStream, *messages: str) -> None:
    """Log messages."""
    for message in messages:
        log.add(make_lines(time.time(), "INFO", message, None))


def test_lines_go_in_batches_and_in_order() -> None:
    """Ten thousand lines arrive in order, in at most as many requests as batches are needed."""
    shelf = Shelf()
    with stream(shelf) as log:
        for number in range(10_000):
            say(log, f"line {number}")
        assert log.close(quiet=5, limit=20)
    assert shelf.messages == [f"line {number}" for number in range(10_000)]
    assert max(count for _, count in shelf.requests) <= 5000
    assert len(shelf.requests) <= 40


def test_a_quiet_line_goes_out_by_itself() -> None:
    """A single line is not held back until there are more."""
    shelf = Shelf()
    with stream(shelf) as log:
        say(log, "alone")
        shelf.wait_for(1)
    assert shelf.messages == ["alone"]


def test_lines_before_the_server_is_known_are_kept() -> None:
    """What is logged before the stream is open is sent when it is."""
    shelf, log = Shelf(), LogStream(interval=0.01)
    say(log, "early")
    log.open(shelf.send, lambda _: None, lambda _: True)
    shelf.wait_for(1)
    log.stop()
    assert shelf.messages == ["early"]


def test_a_lost_answer_doubles_nothing() -> None:
    """A batch whose answer was lost is sent again under the same numbers."""
    shelf = Shelf()
    shelf.answer_lost = 2
    with stream(shelf) as log:
        say(log, "a", "b")
        shelf.wait_for(2)
        say(log, "c")
        assert log.close(quiet=5, limit=20)
    assert shelf.messages == ["a", "b", "c"]


def test_a_gap_is_filled_from_the_number_that_the_server_names() -> None:
    """A server that lost acknowledged lines gets them again, once."""
    shelf = Shelf()
    with stream(shelf) as log:
        say(log, *(f"line {number}" for number in range(100)))
        shelf.wait_for(100)
        with shelf.changed:
            del shelf.entries[40:]
        say(log, "line 100")
        shelf.wait_for(101)
        assert log.close(quiet=5, limit=20)
    assert shelf.messages == [f"line {number}" for number in range(101)]


def test_a_gap_that_reaches_too_far_back_is_said() -> None:
    """Lines that nobody has any more leave a word in their place, and the log goes on."""
    shelf = Shelf()
    with stream(shelf) as log:
        for start in range(0, 3000, 500):
            say(log, *(f"line {number}" for number in range(start, start + 500)))
            shelf.wait_for(start + 500)
        with shelf.changed:
            del shelf.entries[100:]
        say(log, "after")
        assert log.close(quiet=5, limit=20)
    assert shelf.messages[100:] == ["the server lost up to 2900 lines before this one", "after"]


def test_a_full_buffer_drops_the_oldest_and_says_how_many() -> None:
    """During an outage memory is bounded: the newest lines survive, and the log tells how many did not."""
    shelf = Shelf()
    shelf.down.set()
    with stream(shelf, buffer_bytes=10_000) as log:
        say(log, *(f"line {number:04}" for number in range(1000)))
        shelf.down.clear()
        assert log.close(quiet=5, limit=20)
    stored = [message for message in shelf.messages if message.startswith("line")]
    (word,) = (message for message in shelf.messages if not message.startswith("line"))
    assert stored[-1] == "line 0999"
    assert word == f"{1000 - len(stored)} lines were dropped here: they came faster than they could be sent"
    assert 100 < len(stored) < 300


def test_a_refused_line_makes_room_for_a_word() -> None:
    """One line that the server refuses does not take its neighbours along."""
    shelf = Shelf()
    shelf.poison = "evil"
    with stream(shelf) as log:
        say(log, *(f"line {number}" for number in range(50)), "evil", "end")
        assert log.close(quiet=5, limit=20)
    assert shelf.messages == [
        *(f"line {number}" for number in range(50)),
        "a line was refused by the server: poison",
        "end",
    ]


def test_refused_fields_become_text() -> None:
    """A line whose fields the server does not take arrives with them as words."""
    shelf = Shelf()
    shelf.refuse_fields = True
    with stream(shelf) as log:
        log.add(make_lines(time.time(), "INFO", "rows", {"count": 2**70}))
        assert log.close(quiet=5, limit=20)
    assert shelf.messages == ['rows {"count":1180591620717411303424}']


def test_batches_shrink_to_what_the_server_takes() -> None:
    """A server that takes ten lines at a time gets them all."""
    shelf = Shelf()
    shelf.refuse_over = 10
    with stream(shelf) as log:
        say(log, *(f"line {number}" for number in range(95)))
        assert log.close(quiet=5, limit=20)
    assert shelf.messages == [f"line {number}" for number in range(95)]


def test_a_lost_lease_ends_the_log() -> None:
    """After a refusal for good nothing more is sent, and nothing is kept."""
    seen: list[ApiError] = []
    asked = threading.Event()

    def refuse(_first: int, _entries: list[bytes], _timeout: float) -> dict[str, Any]:
        raise LeaseLost("gone", status=409, code="lease_lost")

    def judge(error: ApiError) -> bool:
        seen.append(error)
        asked.set()
        return True

    log = LogStream(interval=0.01)
    log.open(refuse, lambda _: None, judge)
    say(log, "a")
    assert asked.wait(60)
    assert not log.close(quiet=5, limit=20)
    say(log, "b")
    assert [type(error) for error in seen] == [LeaseLost]


def test_closing_gives_up_on_a_silent_server() -> None:
    """The end of a log waits for acknowledgements, not for ever."""
    shelf = Shelf()
    shelf.down.set()
    with stream(shelf) as log:
        say(log, "never")
        begun = time.monotonic()
        assert not log.close(quiet=0.3, limit=20)
        assert 0.25 <= time.monotonic() - begun < 15


def test_replies_are_handed_on() -> None:
    """Whoever opened the stream sees each reply: cancellation travels in it."""
    heard = threading.Event()
    log = LogStream(interval=0.01)

    def heed(reply: dict[str, Any]) -> None:
        if reply.get("cancel_requested"):
            heard.set()

    log.open(
        lambda first, entries, _: {"next_seq": first + len(entries), "cancel_requested": True}, heed, lambda _: True
    )
    say(log, "a")
    assert heard.wait(60)
    log.stop()

"""A lease is kept by heartbeats, judged by our own clock, and never trusted beyond its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cron_observer_sdk.errors import ApiError, BadRequest, LeaseLost, Unavailable
from cron_observer_sdk.keeper import Beat, Heart, Keeper, lasting_clock


class Body:
    """Receives what a keeper does; `answer` is what the server says to a heartbeat."""

    def __init__(self, answer: Callable[[Beat], dict[str, Any]]) -> None:
        self.answer = answer
        self.beats: list[Beat] = []
        self.heard: list[dict[str, Any]] = []
        self.errors: list[ApiError] = []
        self.started = 0
        self.expired_at = 0.0
        self.changed = threading.Condition()

    def heart(self, *, begun: bool = True) -> Heart:
        """Return what the keeper calls."""
        return Heart(None if begun else self._start, self._beat, self._heed, self._refused, self._expired)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds."""
        with self.changed:
            assert self.changed.wait_for(condition, 60), (self.beats, self.errors)

    def _start(self, _timeout: float) -> dict[str, Any]:
        with self.changed:
            self.started += 1
            self.changed.notify_all()
        return {}

    def _beat(self, beat: Beat) -> dict[str, Any]:
        with self.changed:
            self.beats.append(beat)
            self.changed.notify_all()
        return self.answer(beat)

    def _heed(self, reply: dict[str, Any]) -> None:
        with self.changed:
            self.heard.append(reply)
            self.changed.notify_all()

    def _refused(self, error: ApiError) -> bool:
        with self.changed:
            self.errors.append(error)
            self.changed.notify_all()
        return not isinstance(error, Unavailable)

    def _expired(self) -> None:
        with self.changed:
            self.expired_at = self.expired_at or lasting_clock()
            self.changed.notify_all()


@contextmanager
def kept(body: Body, lease: float, pace: float | None = None, *, begun: bool = True) -> Iterator[Keeper]:
    """Keep a lease for the length of the block."""
    keeper = Keeper(lease)
    keeper.open(body.heart(begun=begun), pace, lasting_clock())
    try:
        yield keeper
    finally:
        keeper.stop()


def down(_: Beat) -> dict[str, Any]:
    """Be a server that nobody reaches."""
    raise Unavailable("down")


def test_a_renewed_lease_stays_trusted() -> None:
    """As long as heartbeats are answered, a lease outlasts its own length."""
    body = Body(lambda _: {})
    with kept(body, 1.0, 0.05) as keeper:
        body.wait_for(lambda: len(body.beats) >= 50)
        assert keeper.trusted()
    assert body.expired_at == 0


@pytest.mark.parametrize("lease", [0.3, 1.1])
def test_an_unrenewed_lease_is_given_up_before_its_end(lease: float) -> None:
    """Without an answer, the lease ends for us in its last tenth, whatever the pace of the tries."""
    body = Body(down)
    begun = lasting_clock()
    with kept(body, lease) as keeper:
        body.wait_for(lambda: body.expired_at)
        assert not keeper.trusted()
    assert 0.9 * lease <= body.expired_at - begun < lease + 1
    assert all(beat.timeout <= lease for beat in body.beats)


def test_the_begin_is_told_first_and_once() -> None:
    """A claimed run says that it begins, then beats."""
    body = Body(lambda _: {})
    with kept(body, 0.9, 0.1, begun=False):
        body.wait_for(lambda: len(body.beats) >= 3)
    assert body.started == 1


def test_the_server_sets_the_pace() -> None:
    """Each answer may change it; one that is longer than half the lease is not followed."""
    paces = iter([0.1, 0.1, 3600.0])
    body = Body(lambda _: {"heartbeat_every_seconds": next(paces, 3600.0)})
    with kept(body, 2.0, 0.1):
        body.wait_for(lambda: len(body.beats) >= 4)
    assert body.expired_at == 0


def test_a_checkpoint_is_sent_once_and_with_haste() -> None:
    """A checkpoint does not wait for a slow pace, and is not repeated; the newest wins."""
    body = Body(lambda _: {})
    with kept(body, 3600, 1800) as keeper:
        keeper.note_checkpoint({"row": 1})
        keeper.note_checkpoint({"row": 2})
        body.wait_for(lambda: len(body.beats) >= 1)
        keeper.save_checkpoint(1.0)
        keeper.note_progress(0.5, "half")
        keeper.note_checkpoint({"row": 3})
        keeper.save_checkpoint(1.0)
        keeper.save_checkpoint(1.0)
    assert [(beat.checkpoint, beat.progress, beat.message) for beat in body.beats] == [
        ({"row": 2}, None, None),
        ({"row": 3}, 0.5, "half"),
    ]


def test_a_refused_checkpoint_does_not_cost_the_lease() -> None:
    """What the server does not store is left out of the next try, and said."""

    def choosy(beat: Beat) -> dict[str, Any]:
        if beat.checkpoint is not None:
            raise BadRequest("too large", status=400)
        return {}

    body = Body(choosy)
    with kept(body, 3600, 1800) as keeper:
        keeper.note_checkpoint("x" * 100)
        keeper.save_checkpoint(1.0)
        keeper.save_checkpoint(1.0)
    assert len(body.beats) == 2
    assert {"refused_checkpoint": "too large"} in body.heard
    assert body.errors == []


@pytest.mark.parametrize(("value", "sent"), [(float("nan"), None), (float("inf"), 1.0), (-3.0, 0.0), (0.25, 0.25)])
def test_progress_is_between_0_and_1(value: float, sent: float | None) -> None:
    """Numbers beyond the ends are cut; what is no number is not sent."""
    body = Body(lambda _: {})
    with kept(body, 3600, 1800) as keeper:
        keeper.note_progress(value, None)
        keeper.note_checkpoint(1)
        keeper.save_checkpoint(1.0)
    assert body.beats[0].progress == sent


def test_a_refusal_ends_the_heartbeats() -> None:
    """After a lost lease nothing more is sent."""

    def gone(_: Beat) -> dict[str, Any]:
        raise LeaseLost("gone", status=409, code="lease_lost")

    body = Body(gone)
    with kept(body, 0.9, 0.05) as keeper:
        body.wait_for(lambda: body.errors)
        keeper.note_checkpoint(1)
        threading.Event().wait(0.3)
    assert len(body.beats) == 1

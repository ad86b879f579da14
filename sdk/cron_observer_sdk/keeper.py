"""Keeps the lease of one execution: a heartbeat at the server's pace, which also brings the word to stop.

The lease is judged by this host's own clock, counted from the moment a heartbeat was *sent*: so this side
always stops trusting it before the server gives it to somebody else.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cron_observer_sdk.errors import ApiError
from cron_observer_sdk.text import JsonObject, headline, strict_json

#: Share of the lease that must be left for it to be trusted.
MARGIN = 0.1
#: Shortest time between two heartbeats, also when a checkpoint hurries one.
SHORTEST_SECONDS = 1.0
#: Longest time that one heartbeat may take.
BEAT_SECONDS = 10.0


def lasting_clock() -> float:
    """Return seconds that also pass while the host sleeps, where the system can tell."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class Beat(NamedTuple):
    """What one heartbeat says."""

    progress: float | None
    message: str | None
    checkpoint: Any
    timeout: float


class Heart(NamedTuple):
    """What the keeper calls."""

    start: Callable[[float], JsonObject] | None  #: says that the work began (timeout); None if it is known
    beat: Callable[[Beat], JsonObject]
    heed: Callable[[JsonObject], None]  #: gets each reply
    refused: Callable[[ApiError], bool]  #: says whether an error ends the heartbeats
    expired: Callable[[], None]  #: the lease ran out by our clock


class Keeper:
    """Sends heartbeats from a thread until it is stopped."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._pace = lease_seconds / 3
        self._changed = threading.Condition()
        self._stopped = False
        self._hurry = False
        self._progress: float | None = None
        self._message: str | None = None
        self._checkpoint: Any = None
        self._checkpoint_number = 0  #: counts what the work saved
        self._checkpoint_stored = 0  #: the last one that the server acknowledged
        self._trusted_until = 0.0
        self._heart: Heart | None = None

    def note_progress(self, progress: float, message: str | None) -> None:
        """Say how far the work is, with the next heartbeat."""
        if progress != progress:  # noqa: PLR0124  NaN
            return
        with self._changed:
            self._progress = min(1.0, max(0.0, float(progress)))
            if message is not None:
                self._message = headline(message, 1000)

    def note_checkpoint(self, value: Any) -> None:
        """Save a value for the next attempt, as soon as may be. Raise `TypeError`, `ValueError` if it is no JSON."""
        value = json.loads(strict_json(value))
        with self._changed:
            self._checkpoint = value
            self._checkpoint_number += 1
            self._hurry = True
            self._changed.notify_all()

    def open(self, heart: Heart, pace: Any, leased_at: float) -> None:
        """Begin to keep a lease that counts from `leased_at` (on the lasting clock)."""
        self._heart = heart
        self._trust(leased_at)
        self._set_pace(pace)
        threading.Thread(target=self._keep, args=(heart,), name="cron-observer-lease", daemon=True).start()

    def stop(self) -> None:
        """Send no more heartbeats."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def trusted(self) -> bool:
        """Say whether the lease is ours by our own clock."""
        return lasting_clock() < self._trusted_until

    def save_checkpoint(self, timeout: float) -> None:
        """Send a checkpoint that is still waiting. Raise `ApiError` if the server does not take it."""
        if self._heart is not None and self._checkpoint_number != self._checkpoint_stored:
            self._beat(self._heart, timeout)

    def _keep(self, heart: Heart) -> None:
        """Say that the work began, then beat until stopped or refused."""
        begin, wait = heart.start, 0.0 if heart.start is not None else self._pace
        while self._rest(wait):
            if not self.trusted():
                heart.expired()
            try:
                if begin is not None:
                    heart.heed(begin(self._patience()))
                    begin = None
                else:
                    self._beat(heart, self._patience())
                wait = self._pace
            except ApiError as error:
                if self._stopped or heart.refused(error):
                    return
                wait = self._until_distrust(random.uniform(0.5, 1.0) * min(self._pace, 2.0))  # noqa: S311
            if not self.trusted():
                heart.expired()

    def _patience(self) -> float:
        """Return how long a heartbeat may take: not beyond the moment when the lease ends for us."""
        return max(0.2, self._until_distrust(min(BEAT_SECONDS, self._lease / 3)))

    def _until_distrust(self, seconds: float) -> float:
        """Cut a time at the moment when the lease ends for us; after it, leave the time as it is."""
        left = self._trusted_until - lasting_clock()
        return min(seconds, left) if left > 0 else seconds

    def _beat(self, heart: Heart, timeout: float) -> None:
        """Send one heartbeat. Raise `ApiError`."""
        with self._changed:
            self._hurry = False
            number = self._checkpoint_number
            checkpoint = self._checkpoint if number != self._checkpoint_stored else None
            beat = Beat(self._progress, self._message, checkpoint, timeout)
        sent_at = lasting_clock()
        try:
            reply = heart.beat(beat)
        except ApiError as error:
            if checkpoint is None or error.status not in {400, 413, 422}:
                raise
            reply = heart.beat(beat._replace(checkpoint=None))
            heart.heed({"refused_checkpoint": error.message})
        self._checkpoint_stored = number
        self._trust(sent_at)
        self._set_pace(reply.get("heartbeat_every_seconds"))
        heart.heed(reply)

    def _rest(self, seconds: float) -> bool:
        """Wait for the next heartbeat, less if a checkpoint hurries; False when stopped."""
        with self._changed:
            if seconds > SHORTEST_SECONDS:
                self._changed.wait_for(lambda: self._stopped, SHORTEST_SECONDS)
                self._changed.wait_for(lambda: self._stopped or self._hurry, seconds - SHORTEST_SECONDS)
            elif seconds > 0:
                self._changed.wait_for(lambda: self._stopped, seconds)
            return not self._stopped

    def _trust(self, sent_at: float) -> None:
        """Count the lease from when it was asked for."""
        self._trusted_until = sent_at + self._lease * (1 - MARGIN)

    def _set_pace(self, pace: Any) -> None:
        """Take the server's pace, kept within the lease."""
        if isinstance(pace, (int, float)) and pace > 0:
            self._pace = min(float(pace), self._lease / 2)

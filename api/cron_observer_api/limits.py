"""How many requests a key may make: a token bucket for each, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from litestar.connection import ASGIConnection

from cron_observer_api.problems import RateLimited

#: Requests a second that one key may make for as long as it likes: above what one process serves to honest workers.
RATE: Final = 10_000.0

#: Requests that may come at once before the rate counts.
BURST: Final = 20_000

#: Buckets remembered; full ones are forgotten beyond it, and they lose nothing by that.
REMEMBERED: Final = 10_000

#: Where the edge finds the header fields of a counted request.
FIELDS: Final = "cron_observer_rate_limit"


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Limiter:
    """Counts requests by key, and by address for readers who bring none."""

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, _Bucket] = {}

    def count(self, request: ASGIConnection[Any, Any, Any, Any], key_id: str | None, now: float) -> None:
        """Count one request and note its RateLimit fields. `now` is monotonic seconds.

        Raises `RateLimited` when there were too many.
        """
        address = request.client.host if request.client else ""
        bucket = self._bucket(f"key:{key_id}" if key_id else f"address:{address}", now)
        allowed = bucket.level >= 1
        if allowed:
            bucket.level -= 1
        request.scope["state"][FIELDS] = [
            (b"ratelimit-limit", b"%d" % self._burst),
            (b"ratelimit-remaining", b"%d" % max(0, int(bucket.level))),
            (b"ratelimit-reset", b"%d" % -int(-(self._burst - bucket.level) // self._rate)),
        ]
        if not allowed:
            wait = (1 - bucket.level) / self._rate
            raise RateLimited(
                "too many requests with this credential",
                hint="wait for Retry-After seconds; long polls and batches need fewer requests",
                retry_after_seconds=round(wait, 3),
            )

    def _bucket(self, name: str, now: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= REMEMBERED:
                self._forget_full(now)
            bucket = self._buckets[name] = _Bucket(self._burst, now)
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now
        return bucket

    def _forget_full(self, now: float) -> None:
        self._buckets = {
            name: bucket
            for name, bucket in self._buckets.items()
            if bucket.level + (now - bucket.at) * self._rate < self._burst
        }

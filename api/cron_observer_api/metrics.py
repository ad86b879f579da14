"""What Prometheus reads: counters of this process, and live counts of the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from cron_observer.model import RESERVED_QUEUES
from cron_observer.store import live
from cron_observer.store.engine import clock
from cron_observer_api import metrics_sources
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import declare

#: What this process counts by itself.
PROCESS: Final = CollectorRegistry()

_requests: Final = Counter(
    "cron_observer_http_requests",
    "HTTP requests answered, by method, route and status.",
    ("method", "route", "status"),
    registry=PROCESS,
)
_latency: Final = Histogram(
    "cron_observer_http_request_seconds",
    "Seconds from the first byte of a request to the end of its answer, by route.",
    ("route",),
    registry=PROCESS,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0),
)

#: Reports in one transaction of the group-commit writer.
WRITER_BATCH: Final = Histogram(
    "cron_observer_writer_batch_reports",
    "Reports that one transaction of the writer carried.",
    registry=PROCESS,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)

_pings: Final = Counter(
    "cron_observer_pings",
    "Pings of jobs that somebody else fires, by what became of them: taken, refused, unavailable.",
    ["result"],
    registry=PROCESS,
)
_hooks: Final = Counter(
    "cron_observer_hook_deliveries",
    "Deliveries of webhooks, by forge and what became of them: woken, ignored, refused.",
    ("provider", "result"),
    registry=PROCESS,
)

_refusals: Final = Counter(
    "cron_observer_ownership_refusals",
    "Writes of the API that were refused because a manifest owns what they would change, by method and route.",
    ("method", "route"),
    registry=PROCESS,
)

#: Methods that are counted by name; a made-up one must not make a new series.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count one answered request. `route` is the path template, None where no route matched."""
    known = route or "unmatched"
    _requests.labels(method if method in _METHODS else "other", known, str(status)).inc()
    _latency.labels(known).observe(seconds)


def count_refusal(method: str, route: str) -> None:
    """Count a write that a manifest stood against. `route` is the path template."""
    _refusals.labels(method, route).inc()


def count_hook(provider: str, result: str) -> None:
    """Count a delivery to a webhook that there is: `result` is woken, ignored or refused."""
    _hooks.labels(provider, result).inc()


def count_ping(result: str) -> None:
    """Count a ping: `result` is taken, refused or unavailable."""
    _pings.labels(result).inc()


class _Live:
    """Live counts as a collector of one scrape."""

    def __init__(self, counts: live.Counts, now: datetime) -> None:
        self._counts = counts
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        counts = self._counts
        yield _gauge(
            "cron_observer_executions",
            "Executions that fell due in the last 24 hours, by status; counted up to 100,000.",
            counts.by_status,
            "status",
        )
        outcomes = GaugeMetricFamily(
            "cron_observer_slot_outcomes",
            "Slots that fell due in the last hour, by status and reason, ranges included; rows counted up to 100,000.",
            labels=["status", "reason"],
        )
        for (status, reason), count in sorted(counts.by_outcome.items()):
            outcomes.add_metric([status, reason], count)
        yield outcomes
        yield from self._waiting("executions", "that wait for a worker", counts.waiting.get("", live.Waiting()))
        webhooks = RESERVED_QUEUES["http"]
        yield from self._waiting("webhooks", "that wait to be sent", counts.waiting.get(webhooks, live.Waiting()))
        running = sum(counts.running.values())
        yield _single("cron_observer_executions_running", "Executions that run; counted up to 100,000.", running)
        yield _single(
            "cron_observer_webhooks_running",
            "Those of them that were sent, or taken by their destination.",
            counts.running.get(webhooks, 0),
        )
        yield _single(
            "cron_observer_statistics_quarters_waiting",
            "Closed quarters that have changed and wait to be counted.",
            counts.quarters_waiting,
        )
        yield from metrics_sources.gauges(counts.sources, self._now)

    def _waiting(self, what: str, how: str, found: live.Waiting) -> Iterator[Metric]:
        """Yield how many executions are due that nobody has begun, and for how long."""
        yield _single(f"cron_observer_{what}_due", f"Due executions {how}; counted up to 100,000.", found.count)
        seconds = max(0.0, (self._now - found.oldest).total_seconds()) if found.oldest else 0.0
        yield _single(f"cron_observer_{what}_due_oldest_seconds", "How long the oldest of them has been due.", seconds)


def _gauge(name: str, says: str, values: Mapping[str, float], label: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, says, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _single(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, says, value=value)


class _Both:
    """Registers nothing: gives the process's metrics and those of one scrape."""

    def __init__(self, counts: _Live) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        yield from PROCESS.collect()
        yield from self._counts.collect()


@get(
    "/metrics",
    operation_id="getMetrics",
    opt=declare(
        summary="Metrics for Prometheus",
        tag="health",
        scopes=("read",),
        answers={200: "text/plain"},
    ),
)
async def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the counters of this process and live counts of the caller's tenant."""
    tenant_id = principal_of(request).tenant_id
    async with request.app.state.database.transaction([tenant_id]) as conn:
        now = await clock(conn)
        counts = await live.counts(conn, tenant_id, now)
    text = generate_latest(_Both(_Live(counts, now)))
    return Response(
        text, media_type=CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8"), headers={"Cache-Control": "no-store"}
    )

"""How sources stand, as metrics: from what their passes wrote down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cron_observer.conditions import behind_since
from cron_observer.store.live import SourceCounts


def gauges(sources: Sequence[SourceCounts], now: datetime) -> Iterator[Metric]:
    """Yield the metrics of all sources at `now`."""
    yield _stale(sources, now)
    yield _each(
        "behind", "Whether what a source was seen to hold is not what is in force.", sources, lambda one: one.behind
    )
    yield _findings(sources)
    yield _each("held", "Removals of a source that wait.", sources, lambda one: one.counts.get("held", 0))
    yield _each("failures", "Looks at a source in a row that failed.", sources, lambda one: one.failures)
    yield _each("lease_epoch", "How often somebody took the lease of a source.", sources, lambda one: one.lease_epoch)
    yield _fetched(sources)
    yield _suspended(sources, now)
    yield _steps(sources)


def _each(
    name: str, says: str, sources: Sequence[SourceCounts], value: Callable[[SourceCounts], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"cron_observer_source_{name}", says, labels=["source"])
    for one in sources:
        family.add_metric([one.name], value(one))
    return family


def _stale(sources: Sequence[SourceCounts], now: datetime) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "cron_observer_source_stale_seconds",
        "Seconds since what is in force was last known to be what a source holds.",
        labels=["source"],
    )
    for one in sources:
        since = behind_since(one.conditions, one.observed_at)
        if since is not None:
            family.add_metric([one.name], (now - since).total_seconds())
    return family


def _findings(sources: Sequence[SourceCounts]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "cron_observer_source_findings", "What is wrong in the files of a source.", labels=["source", "severity"]
    )
    for one in sources:
        for severity, name in (("error", "errors"), ("warning", "warnings")):
            family.add_metric([one.name, severity], one.counts.get(name, 0))
    return family


def _fetched(sources: Sequence[SourceCounts]) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "cron_observer_source_fetched_bytes",
        "Bytes that fetches have added to our copy of a source.",
        labels=["source"],
    )
    for one in sources:
        family.add_metric([one.name], one.fetched_bytes)
    return family


def _suspended(sources: Sequence[SourceCounts], now: datetime) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "cron_observer_source_suspended_seconds", "For how long a source has been suspended.", labels=["source"]
    )
    for one in sources:
        holds = one.suspended_at is not None and (one.suspended_until is None or one.suspended_until > now)
        since = one.suspended_at if holds and one.suspended_at is not None else now
        family.add_metric([one.name], (now - since).total_seconds())
    return family


def _steps(sources: Sequence[SourceCounts]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "cron_observer_source_run_seconds",
        "What each step of the last run of a source took, with how it compared and what became of it.",
        labels=["source", "step", "strategy", "outcome"],
    )
    for one in sources:
        for step, seconds in sorted((one.timings or {}).items()):
            family.add_metric([one.name, step, one.strategy or "", one.outcome or ""], seconds)
    return family

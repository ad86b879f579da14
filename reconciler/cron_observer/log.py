"""Logs: one line an event, JSON or for people, names from a closed list, secrets blotted out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from cron_observer.settings import redacted

#: Every event that is logged and what it means. A test compares it with the calls in the code.
EVENTS: Final = {
    "api_listens": "The API answers requests.",
    "api_stops": "The API takes no more requests and finishes those under way.",
    "claim_round_failed": "A round of claims failed; the workers wait for the next one.",
    "clock_jumped": "The database's clock left the machine's by more than 2 s: nothing expires until it is back.",
    "clock_thawed": "The database's clock is believed again; leases were extended.",
    "definition_unreadable": "The stored definition of a task cannot be read; its executions go by the defaults.",
    "folder_not_watched": "A folder cannot be watched; it is looked at every poll_seconds instead.",
    "history_rewritten": "A branch no longer contains the commit that was applied last: it was force-pushed.",
    "hook_secret_unreadable": "The secret of a source's webhook cannot be read; its deliveries are refused.",
    "hints_lost": "The connection that hears of requests was lost; until it is back, ticks find them.",
    "key_use_not_noted": "When keys were last used could not be written; they work nevertheless.",
    "loop_failed": "A tick of a loop failed; it is tried again after a growing wait.",
    "loop_recovered": "A tick went well again after failures.",
    "loop_started": "A loop began to tick.",
    "loop_stopped": "A loop has ended as it was told.",
    "loop_stuck": "Three ticks in a row ran into their time limit; the process ends so that it is started anew.",
    "mirror_not_pinned": "The applied commit could not be kept from Git's own clean-up; it is fetched again.",
    "mirror_rebuilt": "Our copy of a repository could not be read and was made anew.",
    "partitions_changed": "Weekly partitions were made or dropped.",
    "pings_unobserved": "Pings could not be received for a while; what was expected meanwhile ends as unknown.",
    "pings_unreceived": "The database was not to be had; pings are refused until it is.",
    "release_failed": "What a worker that has gone was given could not be taken back; its lease will run out.",
    "report_failed": "One report of a worker could not be written; it was told so.",
    "request_failed": "A request was answered with 500: a defect of ours.",
    "request_refused": "A request was answered with 503: the database was not to be had.",
    "source_applied": "A commit, or the state of a folder, is in force.",
    "source_failed": "A source cannot be read; what was applied last stays in force.",
    "source_observed": "What a commit would change was planned; the source is only observed.",
    "source_overtaken": "Another process took a pass over a source; this one wrote nothing.",
    "source_pass_failed": "A pass over a source failed in an unexpected way: a defect of ours.",
    "source_postponed": "The database was not to be had; the source is looked at again.",
    "source_recovered": "A source can be read again.",
    "source_refused": "A commit is not applied: errors under the atomic policy, signatures, or a rewritten history.",
    "status_given_up": "A forge was not told how a commit fared, and is not going to be.",
    "status_not_sent": "A forge could not be told how a commit fared; it is tried again for a day.",
    "stopping": "The process was told to stop and finishes what it has begun.",
    "log_packing_failed": "Small pieces of a log could not be packed into larger ones; it can be read all the same.",
    "log_packing_postponed": "The database was not to be had; small pieces of logs wait to be packed.",
    "stream_failed": "Looking for changes to stream failed; it is tried again.",
    "stream_postponed": "The database was not to be had; streams wait.",
    "task_quarantined": "The slots of one task cannot be written; it is put aside.",
    "tick_part_failed": "One part of a scheduler's tick failed for one tenant; the others went on.",
    "tick_part_postponed": "A part of a tick lost a race for a lock; the next tick does it.",
    "webhook_failed": "An execution could not be sent, in an unexpected way: a defect of ours. It is tried again.",
    "webhook_lease_lost": "A request was cut off because its lease was lost; another dispatcher may send it again.",
    "webhook_not_reported": "How a webhook was answered could not be written; it is sent again under the same id.",
    "webhook_overtaken": "A webhook's execution had ended otherwise before its answer was written.",
    "zone_data_followed": "Tasks were planned anew with newer data on time zones or public holidays.",
    "zone_data_moved": "Newer data on time zones or public holidays moves planned slots; the first are named.",
}

_SECRET_NAME: Final = re.compile(r"(?i)(^|_)(password|passwd|secret|token|authorization|cookie|api_?key|credential)s?$")
_API_KEY: Final = re.compile(r"\bco_([0-9A-Za-z]{8})_[0-9A-Za-z_-]{20,}")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[0-9a-z._~+/=-]{8,}")
#: Whoever knows an address or a key may ping; both stand in paths.
_PING: Final = re.compile(r"(?i)(/ping/|/cron/[^/\s]+/|://)[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
_BLOT: Final = "***"


def _clean(value: Any) -> Any:
    """Return a value without secrets: those of URLs, API keys and credentials wherever they stand in a text."""
    if isinstance(value, str):
        text = _API_KEY.sub(rf"co_\1_{_BLOT}", value)
        text = _BEARER.sub(rf"\1 {_BLOT}", text)
        text = _PING.sub(rf"\1{_BLOT}", text)
        return re.sub(r"\S+://\S+", lambda match: redacted(match[0]), text) if "://" in text else text
    if isinstance(value, dict):
        return {key: _BLOT if _is_secret(key) else _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blot out secrets in an event: by the name of a field, and by their shape in any text (structlog processor)."""
    for name, value in event.items():
        event[name] = _BLOT if _is_secret(name) and value is not None else _clean(value)
    return event


def configure(log_format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of this process, also those of libraries, to `stream` (default: standard error)."""
    stream = stream or sys.stderr
    people = log_format == "console" or (log_format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if people
        else structlog.processors.JSONRenderer(sort_keys=True, default=str)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "git", "watchdog", "asyncio", "httpx", "httpcore", "httpx2", "httpcore2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

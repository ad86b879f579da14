"""What work hands in becomes JSON that the server takes."""

from __future__ import annotations

import json
import re
import threading

import pytest

from cron_observer_sdk.ids import TASK, uuid7
from cron_observer_sdk.text import clean, encode, headline, lenient_json, moment, result_json, strict_json, timestamp


class Mute:
    """Has no words for itself."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_nul_and_lone_surrogates_are_replaced() -> None:
    """Text that the database or UTF-8 cannot hold is replaced, everything else stays."""
    assert clean("a\x00b") == "a\u2400b"
    assert clean("a\ud800b") == "a?b"
    assert clean("ü\x1b[31m\u2028") == "ü\x1b[31m\u2028"


def test_nested_text_is_cleaned_too() -> None:
    """Keys and values are cleaned wherever they stand, tuples become lists."""
    dirty = {"k\x00": ["v\ud800", ({"deep\x00": 1},)]}
    assert json.loads(strict_json(dirty)) == {"k\u2400": ["v?", [{"deep\u2400": 1}]]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": object()}, {1, 2}, b"bytes"])
def test_what_json_cannot_hold_is_refused_in_bodies(value: object) -> None:
    """A request body never holds NaN or Python's own words."""
    with pytest.raises((TypeError, ValueError)):
        encode({"value": value})


def test_too_deep_a_value_is_refused_without_crashing() -> None:
    """Nesting beyond Python's stack is an error that the caller can name."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert result_json(value) == (None, "the result cannot be stored: it is nested too deeply; return JSON values only")


def test_fields_of_a_line_never_fail() -> None:
    """What JSON cannot hold becomes its text in a log line, member by member."""
    fields = json.loads(lenient_json({"rows": 3, "nan": float("nan"), "path": {"set"}, "mute": Mute()}))
    assert fields == {"rows": 3, "nan": "nan", "path": "{'set'}", "mute": "<Mute>"}


def test_result_may_have_64_kib_and_not_a_byte_more() -> None:
    """The limit counts UTF-8 bytes of compact JSON."""
    assert result_json("ü" * 32767)[1] is None
    value, why = result_json("ü" * 32768)
    assert value is None
    assert why == "the result cannot be stored: 65538 bytes of JSON, 65536 are allowed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1774746000.9996, "2026-03-29T01:00:01.000Z"),
        (1774746000.0004, "2026-03-29T01:00:00.000Z"),
    ],
)
def test_times_have_milliseconds_and_round_over_the_second(seconds: float, text: str) -> None:
    """Times are RFC 3339 in UTC."""
    assert timestamp(seconds) == text


def test_instants_of_the_server_come_back_aware() -> None:
    """An instant is read with its zone; none stays none."""
    read = moment("2026-03-29T01:30:00.250Z")
    assert read is not None
    assert read.isoformat() == "2026-03-29T01:30:00.250000+00:00"
    assert moment(None) is None


def test_headlines_are_cut_visibly() -> None:
    """A cut message ends with an ellipsis."""
    assert headline("x" * 10, 5) == "xxxx…"
    assert headline("short") == "short"


def test_ids_are_uuid7_and_sort_by_time() -> None:
    """Ids minted one after another sort so, also when threads mint together."""
    ids = [uuid7() for _ in range(5000)]
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    several: list[str] = []
    threads = [threading.Thread(target=lambda: several.extend(uuid7() for _ in range(2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(several)) == 8000


@pytest.mark.parametrize("name", ["default/nightly-export", "a/b.c", "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
def test_names_and_uids_are_tasks(name: str) -> None:
    """``project/name`` and uids name a task."""
    assert TASK.fullmatch(name)


@pytest.mark.parametrize("name", ["nightly", "a/b/c", "/b", "a/", "a b/c", ""])
def test_other_words_are_no_tasks(name: str) -> None:
    """A word without a project, or with blanks, names none."""
    assert TASK.fullmatch(name) is None

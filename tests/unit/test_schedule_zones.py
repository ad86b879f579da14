"""Zones: their names, and the truth of what is remembered of them."""

from __future__ import annotations

import struct
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec
from cron_observer.schedule import zones


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        ("Calcuta", "did you mean Asia/Calcutta?"),
        ("UTC+3", "Etc/GMT-3"),
        ("+02:00", "Etc/GMT-2"),
        ("", "UTC"),
        (" ", "UTC"),
        ("localtime", "IANA"),
        ("Factory", "IANA"),
        ("../../etc/passwd", "IANA"),
        ("/etc/localtime", "IANA"),
        ("posix/Europe/Berlin", "Europe/Berlin"),
        ("right/UTC", "UTC"),
        ("Europe", "IANA"),
        ("Europe/Berlin\x00", "Europe/Berlin"),
        ("x" * 100_000, "IANA"),
    ],
)
def test_an_unknown_zone_is_refused_with_what_was_meant(name: str, hint: str) -> None:
    """Only names of the zone database are zones; a near miss gets a suggestion."""
    with pytest.raises(ScheduleError) as refused:
        schedule.check(ScheduleSpec(cron=("0 0 * * *",), timezone=name))
    assert (refused.value.rule, refused.value.pointer) == ("CO3011", "/timezone")
    assert hint in (refused.value.hint or "")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Asia/Calcutta", "EST5EDT", "Etc/GMT+5"])
def test_names_and_their_old_aliases_are_zones(name: str) -> None:
    """Legacy names go on working."""
    schedule.check(ScheduleSpec(cron=("0 0 * * *",), timezone=name))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})),
    st.integers(0, 80 * 365 * 86_400),
)
def test_labels_are_located_as_the_zone_database_does(name: str, label: int) -> None:
    """A label's instant is the one that zoneinfo gives to its first showing."""
    zone = zones.zone(name)
    naive = datetime.fromisoformat("1970-01-01") + timedelta(seconds=label)
    instant = naive.replace(tzinfo=zone.info).astimezone(UTC)
    found, gap = zone.locate(label)
    assert zones._EPOCH + timedelta(seconds=found) == instant
    exists = instant.astimezone(zone.info).replace(tzinfo=None) == naive
    assert (gap is None) is exists


def _changes(data: bytes) -> list[tuple[int, int, int]]:
    """Read (instant, offset before, offset after) from a file of the zone database."""

    def header(at: int) -> tuple[int, ...]:
        return struct.unpack(">20x6l", data[at : at + 44])

    is_ut, is_std, leaps, times, types, letters = header(0)
    at = 44 + times * 5 + types * 6 + letters + leaps * 8 + is_ut + is_std
    times, types = header(at)[3:5]
    at += 44
    instants = struct.unpack(f">{times}q", data[at : at + 8 * times])
    kinds = data[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", data[at + 6 * kind : at + 6 * kind + 4])[0] for kind in range(types)]
    moves = []
    before = offsets[0]
    for instant, kind in zip(instants, kinds, strict=True):
        if offsets[kind] != before:
            moves.append((instant, before, offsets[kind]))
        before = offsets[kind]
    return moves


def _zone_files() -> list[tuple[str, bytes]]:
    found = []
    folders = [Path(folder) for folder in zoneinfo.TZPATH if (Path(folder) / "UTC").is_file()]
    for folder in [*folders, Path(str(files("tzdata"))) / "zoneinfo"]:
        names = [name for name in sorted(zoneinfo.available_timezones()) if (folder / name).is_file()]
        found += [(f"{folder}/{name}", (folder / name).read_bytes()) for name in names]
    return found


def test_no_zone_changes_twice_within_a_day() -> None:
    """The engine looks at a zone once a day of UTC; no zone of the database slips through."""
    seen = 0
    for name, data in _zone_files():
        moves = [move for move in _changes(data) if move[0] > -86_400 * 3]
        for (first, *_), (second, *_) in pairwise(moves):
            assert second - first > 4 * 86_400, name
        for _, before, after in moves:
            assert max(abs(before), abs(after), abs(after - before)) <= 86_400, name
        seen += len(moves)
    assert seen > 10_000


def test_runs_have_the_changes_of_the_database() -> None:
    """Where the engine sees the clock jump is, to the second, where the zone files say."""
    for name in ("Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Monrovia", "Asia/Pyongyang"):
        zone = zones.zone(name)
        path = next(data for file, data in _zone_files() if file.endswith(f"/{name}"))
        for instant, before, after in _changes(path):
            if instant > 0:
                place = zone.day((instant + before) // 86_400)
                assert isinstance(place, zones.Run)
                gaps = {gap.at: gap.end - gap.first for gap in place.gaps}
                assert gaps.get(instant, 0) == max(0, after - before), (name, instant)


def test_the_version_of_the_zone_data_is_known() -> None:
    """The version has the form of a release, such as 2026a."""
    version = schedule.tzdata_version()
    assert version[:4].isdigit()
    assert version[4:].isalpha()

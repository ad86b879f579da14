"""Charts drawn on the server."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree as ET

from cron_observer_api.pages import moments, svg

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def tree(chart: object) -> ET.Element:
    """Read a chart as XML, the way a browser would."""
    text = str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    # HTML attributes without a value are fine in a page but not in XML.
    return ET.fromstring(text.replace(" data-rove", ""))  # noqa: S314  our own drawing


def lane(name: str = "export", **changes: object) -> svg.Lane:
    """A task with one mark."""
    mark = {
        "begins": NOW - timedelta(hours=2),
        "ends": NOW - timedelta(hours=1),
        "tone": "ok",
        "word": "Finished",
        "href": "/executions/1",
    }
    return svg.Lane(name=name, href="/tasks/default/export", marks=[svg.Mark(**{**mark, **changes})])  # type: ignore[arg-type]


def drawn(*lanes: svg.Lane) -> object:
    """A timeline of four hours with now in its middle."""
    return svg.timeline(
        lanes, NOW - timedelta(hours=2), NOW + timedelta(hours=2), NOW, moments.zone("UTC"), title="Timeline"
    )


def test_marks_stand_where_they_happened() -> None:
    """A mark's left edge and width are its time in the window."""
    (rect,) = [one for one in tree(drawn(lane())).iter(f"{SVG}rect") if one.get("class") == "f-ok"]
    assert (rect.get("x"), rect.get("width")) == ("168", "225")


def test_the_now_line_stands_between_past_and_future() -> None:
    """Now is in the middle of a window that is half past, and absent from a window that is not."""
    (line,) = [one for one in tree(drawn(lane())).iter(f"{SVG}line") if one.get("class") == "now"]
    assert line.get("x1") == "618"
    past = svg.timeline(
        [lane()], NOW - timedelta(hours=9), NOW - timedelta(hours=1), NOW, moments.zone("UTC"), title="t"
    )
    assert 'class="now"' not in str(past)


def test_marks_outside_the_window_are_cut() -> None:
    """A run that began before the window begins at its edge; the tiniest stays visible."""
    early = lane(begins=NOW - timedelta(days=1), ends=NOW - timedelta(hours=2) + timedelta(milliseconds=1))
    (rect,) = [one for one in tree(drawn(early)).iter(f"{SVG}rect") if one.get("class") == "f-ok"]
    assert (rect.get("x"), rect.get("width")) == ("168", "4")


def test_every_mark_has_words_and_a_way() -> None:
    """Each mark is a link that says task, time and outcome; colour is never alone."""
    mark = [one for one in tree(drawn(lane())).iter(f"{SVG}a") if one.get("href") == "/executions/1"]
    assert [one.get("aria-label") for one in mark] == ["export, 08:30, Finished"]


def test_names_are_escaped() -> None:
    """A name cannot leave its text or attribute."""
    chart = str(drawn(lane(name='"><script>')))
    assert "<script" not in chart
    tree(chart)


def test_no_chart_styles_itself() -> None:
    """Geometry is in attributes: a style attribute would be refused by the policy."""
    runs = [["id", "FAILED", False, 3.0, 0.0, None], ["id", "SKIPPED", False, None, 0.0, None]]
    listed = [{"id": "i", "status": "FINISHED", "late": True, "reason": None, "seconds": 2.0, "fire_at": NOW}]
    charts = [
        drawn(lane()),
        svg.bars(runs),
        svg.spark([1, None, 3]),
        svg.spark([]),
        svg.stack([("ok", 999), ("fail", 1)]),
        svg.heat({date(2026, 11, 20): ("h3", "fine")}, date(2026, 11, 21), 12, moments.MONTHS),
        svg.grid(listed, moments.zone("UTC"), 2.0),
    ]
    for chart in charts:
        tree(chart)
        assert not re.search(r"\sstyle=|\son\w+=|<script", str(chart))


def test_rare_trouble_stays_visible() -> None:
    """One failure among a thousand is wide enough to be seen, and the bar still fits."""
    rects = list(tree(svg.stack([("ok", 999), ("late", 0), ("fail", 1)])).iter(f"{SVG}rect"))
    widths = {rect.get("class"): float(rect.get("width", "0")) for rect in rects}
    assert widths["f-fail"] >= 3.9
    assert sum(widths.values()) <= 200.2


def test_bars_rise_with_duration() -> None:
    """The longest run has the tallest bar; one that never ran has a stump."""
    runs = [
        ["a", "FINISHED", False, 1.0, 0.0, None],
        ["b", "FINISHED", False, 9.0, 0.0, None],
        ["c", "MISSED", False, None, 0.0, "no_worker"],
    ]
    chart = tree(svg.bars(runs))
    heights = [float(rect.get("height", "0")) for rect in chart.iter(f"{SVG}rect")]
    assert heights[1] > heights[0] > heights[2]
    assert chart.get("aria-label") == "Last 3 runs, 1 failed or missed"


def test_the_heat_calendar_ends_today() -> None:
    """There is a cell for each day up to today and none after; days with runs lead to them."""
    chart = tree(svg.heat({date(2026, 11, 20): ("h5", "bad")}, date(2026, 11, 21), 12, moments.MONTHS))
    rects = list(chart.iter(f"{SVG}rect"))
    assert len(rects) == 11 * 7 + 6
    assert [one.get("href") for one in chart.iter(f"{SVG}a")] == ["/?date=2026-11-20"]

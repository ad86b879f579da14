"""Calendars, task groups and policies in manifests: what a document alone and what only the set shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cron_observer import manifest
from cron_observer.manifest.calendar import calendar_files, file_path
from cron_observer.model import GroupSpec, OnWindowClose, Policy, Severity, Window
from support.manifests import task

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ICS = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:{day}\nEND:VEVENT\nEND:VCALENDAR\n"
NIGHTLY = '  schedule: {cron: "30 2 * * 1-5"}\n'


def other(kind: str, spec: str, name: str = "x") -> str:
    """Return a Calendar or TaskGroup with this spec."""
    return f"apiVersion: cron-observer/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def scheduled(block: str, name: str = "a", more: str = "") -> str:
    """Return a task with this schedule."""
    return task(f"  schedule: {{{block}}}\n{more}", name)


def found(text: str) -> list[tuple[str, str | None]]:
    """Return codes and pointers of what is wrong with a file."""
    return [(one.code, one.pointer) for one in manifest.parse("a.yaml", text.encode()).findings]


def validated(folder: Path, *texts: str, **files: str) -> list[tuple[str, str | None]]:
    """Return codes and pointers of what is wrong with a folder of these manifests."""
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    for name, text in files.items():
        (folder / f"{name}.ics").write_text(text)
    return [(one.code, one.pointer) for one in manifest.validate_tree(folder, NOW).findings]


# -- one document ---------------------------------------------------------------------------------------------


def test_calendars_and_groups_are_definitions() -> None:
    """A valid document of the other kinds comes out with every default filled in."""
    text = (
        other("Calendar", "{entries: [{holidays: {country: DE}}]}")
        + "---\n"
        + other("TaskGroup", "{windows: [{from: '22:00', to: '06:00'}]}")
    )
    parsed = manifest.parse("a.yaml", text.encode())
    calendar, group = parsed.others

    assert parsed.findings == ()
    assert (calendar.kind, calendar.name, calendar.line, calendar.document) == ("Calendar", "x", 3, 0)
    assert calendar.spec == {
        "timezone": None,
        "entries": [{"holidays": {"country": "DE", "subdivision": None}}],
        "base": [],
    }
    assert (group.kind, group.line, group.document) == ("TaskGroup", 8, 1)
    assert group.spec == {
        "windows": [{"days": ["sun-sat"], "from": "22:00", "to": "06:00"}],
        "timezone": "UTC",
        "maxParallel": None,
        "onWindowClose": "let_run",
        "suspend": False,
    }
    assert GroupSpec.read(group.spec) == GroupSpec(windows=(Window(frozenset(range(7)), 22 * 60, 6 * 60),))
    assert GroupSpec.read(group.spec).on_window_close is OnWindowClose.LET_RUN


OTHERS = ("Calendar", "TaskGroup", "Defaults", "Project")


@pytest.mark.parametrize(
    ("text", "broken_names", "broken_others"),
    [
        (other("Calendar", "{entries: []}"), (), (("Calendar", "x"),)),
        (other("TaskGroup", "{windows: 3}"), (), (("TaskGroup", "x"),)),
        (other("Calender", "{}"), ("x",), tuple((kind, "x") for kind in OTHERS)),
        (other("Project", "{limits: 3}"), (), (("Project", "x"),)),
        (other("Defaults", "{}"), (), (("Defaults", "x"),)),
        (other("AlertRule", "{}"), (), ()),
    ],
)
def test_broken_documents_keep_their_names(text: str, broken_names: Any, broken_others: Any) -> None:
    """Nothing is removed on account of a document that is broken, even one whose kind is misspelt."""
    parsed = manifest.parse("a.yaml", text.encode())

    assert (parsed.broken_names, parsed.broken_others, parsed.others) == (broken_names, broken_others, ())
    assert parsed.findings


def test_one_name_of_two_kinds_is_no_duplicate() -> None:
    """A task, a calendar and a group may share a name; two calendars may not."""
    calendar = other("Calendar", "{entries: [{weekdays: [sun]}]}")
    group = other("TaskGroup", "{}")

    assert found("---\n".join((calendar, group, task(NIGHTLY, "x")))) == []
    assert found("---\n".join((calendar, group, calendar))) == [("CO1207", "/metadata/name")] * 2


ENTRY = "/spec/entries/0"


@pytest.mark.parametrize(
    ("entry", "code", "pointer"),
    [
        ("{date: 2026-02-30}", "CO1405", f"{ENTRY}/date"),
        ("{date: tomorrow}", "CO1305", f"{ENTRY}/date"),
        ("{from: 2026-01-02, to: 2026-01-01}", "CO1406", f"{ENTRY}/to"),
        ("{from: 2026-01-02}", "CO1312", f"{ENTRY}/from"),
        ('{yearly: "13-01"}', "CO1405", f"{ENTRY}/yearly"),
        ("{weekdays: [saturday]}", "CO1305", f"{ENTRY}/weekdays/0"),
        ("{weekdays: []}", "CO1307", f"{ENTRY}/weekdays"),
        ("{holidays: {}}", "CO1302", f"{ENTRY}/holidays/country"),
        ("{holidays: {country: Germany}}", "CO1401", f"{ENTRY}/holidays/country"),
        ("{holidays: {country: DE, subdivision: Berlin}}", "CO1402", f"{ENTRY}/holidays/subdivision"),
        ("{ics: ../a.ics}", "CO1410", f"{ENTRY}/ics"),
        ("{ics: a.txt}", "CO1410", f"{ENTRY}/ics"),
        ("{}", "CO1319", ENTRY),
        ("5", "CO1303", ENTRY),
        ("null", "CO1303", ENTRY),
        ("{date: 2026-01-01, weekdays: [sun]}", "CO1319", ENTRY),
        ("{day: 2026-01-01}", "CO1301", f"{ENTRY}/day"),
        ("2026-01-01", "CO1303", ENTRY),
    ],
)
def test_each_wrong_entry_is_said_at_its_place(entry: str, code: str, pointer: str) -> None:
    """An entry of a calendar that is wrong is one finding, at the field that is wrong."""
    assert found(other("Calendar", f"{{entries: [{entry}]}}")) == [(code, pointer)]


def test_yearly_leap_days_and_norway_are_texts() -> None:
    """29 February is a day of a calendar, and the country NO is no boolean."""
    assert found(other("Calendar", '{entries: [{yearly: "02-29"}, {holidays: {country: NO}}]}')) == []


@pytest.mark.parametrize(
    ("spec", "code", "pointer"),
    [
        ('{windows: [{from: "10:00", to: "10:00"}]}', "CO1317", "/spec/windows/0/to"),
        ('{windows: [{from: "10:00", to: "25:00"}]}', "CO1305", "/spec/windows/0/to"),
        ('{windows: [{from: "24:00", to: "10:00"}]}', "CO1305", "/spec/windows/0/from"),
        ('{windows: [{from: "10:00"}]}', "CO1302", "/spec/windows/0/to"),
        ("{timezone: Europe/Berln}", "CO3011", "/spec/timezone"),
        ("{maxParallel: 0}", "CO1306", "/spec/maxParallel"),
        ("{onWindowClose: cancel}", "CO1315", "/spec/onWindowClose"),
        ("{suspend: 1}", "CO1303", "/spec/suspend"),
    ],
)
def test_each_mistake_of_a_group_is_said(spec: str, code: str, pointer: str) -> None:
    """Windows, zone and limits of a group are checked as those of a task are."""
    assert found(other("TaskGroup", spec)) == [(code, pointer)]


CRON = 'cron: "30 2 * * 1-5"'


@pytest.mark.parametrize(
    ("block", "code", "pointer"),
    [
        (CRON + ", windows: [{from: 10:00, to: 12:00}]", "CO3022", "/windows"),
        (CRON + ', windows: [{from: "02:00", to: "02:00"}]', "CO1317", "/windows/0/to"),
        (CRON + ", dst: {gap: skp}", "CO1304", "/dst/gap"),
        (CRON + ", dst: {overlap: none}", "CO1304", "/dst/overlap"),
        (CRON + ", jitter: 25h", "CO1309", "/jitter"),
        (CRON + ", jitter: 0s", "CO1309", "/jitter"),
        ("every: 5m, jitter: 10m", "CO1318", "/jitter"),
        (CRON + ", startAt: now", "CO3018", "/startAt"),
        (CRON + ', startAt: "2026-02-01T00:00:00", endAt: "2026-01-01T00:00:00"', "CO3019", "/endAt"),
        ("every: 5m, calendars: {exclude: [x]}, onExcluded: next_allowed", "CO3021", "/onExcluded"),
        (CRON + ", onExcluded: next_allowed", "CO1315", "/onExcluded"),
        (CRON + ", calendars: {exclude: [x], include: [x]}", "CO1316", "/calendars/exclude/0"),
        (CRON + ", calendars: {exclude: [x, x]}", "CO1315", "/calendars/exclude/1"),
        (CRON + ", calendars: {exclude: [X]}", "CO1206", "/calendars/exclude/0"),
        (CRON + ", calendars: {exclude: x}", "CO1303", "/calendars/exclude"),
    ],
)
def test_each_mistake_of_a_schedule_is_said(block: str, code: str, pointer: str) -> None:
    """What narrows a schedule is checked with it, and the finding stands at the field."""
    assert found(scheduled(block)) == [(code, f"/spec/schedule{pointer}")]


@pytest.mark.parametrize(
    ("more", "code", "pointer"),
    [
        ("  maxParallel: 2\n", "CO1316", "/maxParallel"),
        ("  maxParallel: 2\n  overlap: buffer_all\n", "CO1316", "/maxParallel"),
        ("  catchup: {maxRuns: 5}\n", "CO1315", "/catchup/maxRuns"),
        ("  catchup: {policy: none, window: 2h}\n", "CO1315", "/catchup/window"),
        ("  startDeadline: 2h\n", "CO1315", "/startDeadline"),
        ("  maxLateness: 2h\n", "CO1315", "/maxLateness"),
        ("  maxLateness: 10m\n  startDeadline: 20m\n", "CO1315", "/startDeadline"),
        ("  catchup: {policy: all, window: 0s}\n", "CO1309", "/catchup/window"),
        ("  catchup: {policy: all, maxRuns: 1001}\n", "CO1306", "/catchup/maxRuns"),
        ("  onResume: some\n", "CO1304", "/onResume"),
        ("  group: Billing\n", "CO1206", "/group"),
    ],
)
def test_policies_that_contradict_each_other(more: str, code: str, pointer: str) -> None:
    """A setting that another one keeps from doing anything is said, an impossible pair is refused."""
    assert found(scheduled(CRON, more=more)) == [(code, f"/spec{pointer}")]


@pytest.mark.parametrize(
    "more",
    [
        "  maxParallel: 2\n  overlap: allow_all\n",
        "  catchup: {policy: all, maxRuns: 5}\n",
        "  catchup: {maxRuns: 5}\n  onResume: all\n",
        "  catchup: {policy: all}\n  maxLateness: 90d\n  startDeadline: 80d\n",
        "  overlap: buffer_one\n  maxLateness: 5h\n",
        "  catchup: {policy: last, window: 1h, maxRuns: 10}\n  maxParallel: null\n  maxLateness: null\n",
    ],
)
def test_policies_that_go_together(more: str) -> None:
    """Sensible settings, and every default written out, are no findings."""
    assert found(scheduled(CRON, more=more)) == []


@pytest.mark.parametrize(
    ("catchup", "window"),
    [
        ("{}", "1h"),
        ("{policy: none}", "1h"),
        ("{policy: last, window: null}", "1h"),
        ("{policy: all}", None),
        ("{policy: all, window: null}", None),
        ("{policy: all, window: 2h}", "2h"),
    ],
)
def test_how_far_catch_up_looks_back(catchup: str, window: str | None) -> None:
    """Not written, it is an hour, and unbounded for `all`; filling in defaults twice changes nothing."""
    (one,) = manifest.parse("a.yaml", scheduled(CRON, more=f"  catchup: {catchup}\n").encode()).tasks

    assert one.spec["catchup"]["window"] == window
    assert manifest.effective(one.spec) == one.spec
    assert (Policy.read(one.spec).catchup_window is None) == (window is None)


def test_a_rename_is_read() -> None:
    """The former name comes with the task; one that is the task's own is refused."""
    renamed = task(NIGHTLY).replace("name: nightly-export", "name: nightly-export\n  renamedFrom: FORMER")
    parsed = manifest.parse("a.yaml", renamed.replace("FORMER", "invoices").encode())

    assert [one.renamed_from for one in parsed.tasks] == ["invoices"]
    assert found(renamed.replace("FORMER", "nightly-export")) == [("CO1208", "/metadata/renamedFrom")]
    assert found(renamed.replace("FORMER", "A")) == [("CO1206", "/metadata/renamedFrom")]


# -- calendar files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("a.ics", "team/days/a.ics"),
        ("./sub/a.ics", "team/days/sub/a.ics"),
        ("/a.ics", "a.ics"),
        ("/shared/A.ICS", "shared/A.ICS"),
        ("../a.ics", None),
        ("/../a.ics", None),
        ("sub/../../a.ics", None),
        ("//a.ics", None),
        ("a\\b.ics", None),
        (".git/a.ics", None),
        ("a.ics\n", None),
        ("a.yaml", None),
        ("", None),
    ],
)
def test_paths_of_calendar_files(written: str, path: str | None) -> None:
    """A path is relative to the manifest's folder or to the root, and never leaves the repository."""
    assert file_path("team/days/calendar.yaml", written) == path


def test_a_manifest_names_its_calendar_files() -> None:
    """Whoever reads a source learns from the parsed file which others it needs."""
    text = other("Calendar", "{entries: [{ics: a.ics}, {ics: /b.ics}, {weekdays: [sun]}]}")

    assert calendar_files(manifest.parse("team/a.yaml", text.encode())) == {"team/a.ics", "b.ics"}
    assert calendar_files(manifest.parse("team/a.yaml", task(NIGHTLY).encode())) == set()


# -- a folder -------------------------------------------------------------------------------------------------

SUNDAYS = other("Calendar", "{entries: [{weekdays: [sun]}]}", "sundays")


def test_a_folder_that_fits_together(tmp_path: Path) -> None:
    """Calendars, files, groups and tasks that name each other are no findings."""
    calendar = other("Calendar", "{entries: [{ics: 0.ics}, {ics: /1.ics}], base: [sundays]}", "days")
    group = other("TaskGroup", "{}", "billing")
    one = scheduled(f"{CRON}, calendars: {{exclude: [days], include: []}}", more="  group: billing\n")
    files = {"0": ICS.format(day="20261224"), "1": ICS.format(day="20261231")}

    assert validated(tmp_path, SUNDAYS, calendar, group, one, **files) == []


SCHEDULE = "/spec/schedule"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            [SUNDAYS, scheduled(f"{CRON}, calendars: {{exclude: [sunday]}}")],
            [("CO1403", f"{SCHEDULE}/calendars/exclude/0")],
        ),
        ([scheduled(f"{CRON}, calendars: {{include: [none]}}")], [("CO1403", f"{SCHEDULE}/calendars/include/0")]),
        ([scheduled(CRON, more="  group: none\n")], [("CO1413", "/spec/group")]),
        ([other("Calendar", "{base: [none]}")], [("CO1403", "/spec/base/0")]),
        ([other("Calendar", "{base: [x]}")], [("CO1404", "/spec/base/0")]),
        (
            [SUNDAYS, other("Calendar", "{base: [sundays, y]}", "x"), other("Calendar", "{base: [x]}", "y")],
            [("CO1404", "/spec/base/1"), ("CO1404", "/spec/base/0")],
        ),
        ([other("Calendar", "{entries: [{ics: none.ics}]}")], [("CO1408", "/spec/entries/0/ics")]),
        ([other("Calendar", "{entries: [{ics: bad.ics}]}")], [("CO1411", "/spec/entries/0/ics")]),
        ([SUNDAYS, SUNDAYS], [("CO1207", "/metadata/name")] * 2),
        ([other("TaskGroup", "{}"), other("TaskGroup", "{}")], [("CO1207", "/metadata/name")] * 2),
        (
            [SUNDAYS, scheduled('cron: "0 0 * * sun", calendars: {exclude: [sundays]}')],
            [("CO3022", f"{SCHEDULE}/calendars")],
        ),
        ([scheduled('at: "2026-11-20T00:00:00"')], [("CO1320", f"{SCHEDULE}/at")]),
        ([scheduled('at: ["2026-11-20T00:00:00", "2026-11-22T00:00:00"]')], []),
        ([scheduled(f'{CRON}, endAt: "2026-11-20T00:00:00"')], [("CO1320", f"{SCHEDULE}/endAt")]),
        ([scheduled('at: "2026-11-20T00:00:00"', more="  suspend: true\n")], []),
    ],
)
def test_what_only_the_set_shows(tmp_path: Path, texts: list[str], expected: list[tuple[str, str]]) -> None:
    """Names that lead nowhere or in circles, files, and schedules that are over or excluded whole are found."""
    assert validated(tmp_path, *texts, bad="BEGIN:VCALENDAR\n") == expected


def test_renames_are_compared(tmp_path: Path) -> None:
    """A former name that is still declared, and one with two heirs, are refused."""
    old, new, other_new = (task(NIGHTLY, name) for name in ("old", "new", "newer"))
    new, other_new = (text.replace("spec:", "  renamedFrom: old\nspec:") for text in (new, other_new))

    assert validated(tmp_path, old, new) == [("CO1209", "/metadata/renamedFrom")]
    (tmp_path / "0.yaml").unlink()
    assert validated(tmp_path, other_new, new) == [("CO1210", "/metadata/renamedFrom")]


def test_a_broken_calendar_is_one_finding(tmp_path: Path) -> None:
    """Tasks that name a calendar whose document is broken are not blamed for it, nor calendars based on it."""
    broken = other("Calendar", "{entries: 3}", "sundays")
    based = other("Calendar", "{base: [sundays]}", "days")

    assert validated(tmp_path, broken, based, scheduled(f"{CRON}, calendars: {{exclude: [days]}}")) == [
        ("CO1303", "/spec/entries")
    ]


def test_a_file_alone_is_not_blamed_for_what_it_does_not_show(tmp_path: Path) -> None:
    """Without the folder, a name that leads elsewhere is a warning; a calendar file beside it is read."""
    path = tmp_path / "a.yaml"
    path.write_text(scheduled(f"{CRON}, calendars: {{exclude: [days]}}", more="  group: billing\n"))
    report = manifest.validate_paths([path], now=NOW)

    assert [(one.code, one.severity, one.line) for one in report.findings] == [
        ("CO1414", Severity.WARNING, 6),
        ("CO1414", Severity.WARNING, 7),
    ]
    path.write_text(other("Calendar", "{entries: [{ics: a.ics}]}"))
    (tmp_path / "a.ics").write_text(ICS.format(day="20261224"))
    assert manifest.validate_paths([path], now=NOW).findings == []


def test_links_to_calendar_files_are_not_followed(tmp_path: Path) -> None:
    """A calendar file that is a link is refused: it may lead anywhere."""
    (tmp_path / "real.ics").write_text(ICS.format(day="20261224"))
    (tmp_path / "a.ics").symlink_to("real.ics")

    assert validated(tmp_path, other("Calendar", "{entries: [{ics: a.ics}]}")) == [("CO1411", f"{ENTRY}/ics")]


def test_the_root_is_that_of_the_repository(tmp_path: Path) -> None:
    """In a repository a path that begins with '/' is read from its root, whichever folder is validated."""
    folder = tmp_path / "team"
    folder.mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.ics").write_text(ICS.format(day="20261224"))

    assert validated(folder, other("Calendar", "{entries: [{ics: /a.ics}]}")) == []

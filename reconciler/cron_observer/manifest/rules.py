"""The closed list of what can be wrong with a manifest: stable codes, their severity and their title.

A code never changes its meaning and is never used again; docs/reference/findings/ explains each.
Codes of schedules (CO30##) are raised by `cron_observer.schedule` and only passed on from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cron_observer.model import Severity

#: Raised whenever a rule is added, removed or changed: what was valid yesterday is then looked at again.
VALIDATOR_VERSION: Final = "5"

#: Findings shown of one file; the rest is counted. More than this is noise, not help.
MAX_FINDINGS_A_FILE: Final = 50


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its code, what it is called, and whether breaking it keeps a document from being applied."""

    code: str
    title: str
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule and where: offsets count characters of the file's text from 0.

    `pointer` is a JSON pointer inside the document, None where no value is meant.
    """

    rule: Rule
    message: str
    start: int
    end: int
    hint: str | None = None
    pointer: str | None = None


# The file
TOO_LARGE: Final = Rule("CO1001", "file too large")
NOT_UTF8: Final = Rule("CO1002", "file is not UTF-8")
CONTROL_IN_FILE: Final = Rule("CO1003", "control character in the file")
SYMLINK: Final = Rule("CO1004", "symbolic link")
SUBMODULE: Final = Rule("CO1005", "submodule")
LFS_POINTER: Final = Rule("CO1006", "Git LFS pointer")
ENCRYPTED: Final = Rule("CO1007", "file encrypted with sops")
BAD_PATH: Final = Rule("CO1008", "unusable path")
EMPTY_FILE: Final = Rule("CO1009", "empty file", Severity.WARNING)
UNREADABLE: Final = Rule("CO1010", "unreadable file")
PATHS_DIFFER_BY_CASE: Final = Rule("CO1011", "paths differ only by case", Severity.WARNING)
MORE_FINDINGS: Final = Rule("CO1012", "more findings")

# YAML
SYNTAX: Final = Rule("CO1101", "YAML syntax")
QUOTE_CRON: Final = Rule("CO1102", "cron expression without quotes")
TAB: Final = Rule("CO1103", "tab used as indentation")
DUPLICATE_KEY: Final = Rule("CO1104", "duplicate key")
ANCHOR: Final = Rule("CO1105", "anchor or alias")
MERGE_KEY: Final = Rule("CO1106", "merge key")
TAG: Final = Rule("CO1107", "tag")
DIRECTIVE: Final = Rule("CO1108", "directive")
KEY_NOT_TEXT: Final = Rule("CO1109", "key is not text")
TOO_DEEP: Final = Rule("CO1110", "nested too deeply")
TOO_MANY_NODES: Final = Rule("CO1111", "too many values")
TOO_MANY_DOCUMENTS: Final = Rule("CO1112", "too many documents")
KEY_TOO_LONG: Final = Rule("CO1113", "key too long")
TEXT_TOO_LONG: Final = Rule("CO1114", "text too long")
CONTROL_IN_TEXT: Final = Rule("CO1115", "control character in a text")
BAD_NUMBER: Final = Rule("CO1116", "number out of reach")
BIDI: Final = Rule("CO1117", "invisible direction character", Severity.WARNING)

# The document
NOT_A_MAPPING: Final = Rule("CO1201", "document is not a mapping")
NOT_A_MANIFEST: Final = Rule("CO1202", "apiVersion or kind missing")
UNKNOWN_VERSION: Final = Rule("CO1203", "unknown apiVersion")
UNKNOWN_KIND: Final = Rule("CO1204", "unknown kind")
EMPTY_DOCUMENT: Final = Rule("CO1205", "empty document", Severity.WARNING)
BAD_NAME: Final = Rule("CO1206", "name not allowed")
DUPLICATE_NAME: Final = Rule("CO1207", "name declared twice")
RENAMED_TO_ITSELF: Final = Rule("CO1208", "renamed to itself")
RENAMED_FROM_DECLARED: Final = Rule("CO1209", "the former name is in use")
RENAMED_TWICE: Final = Rule("CO1210", "two tasks renamed from one")
PROJECT_NOT_AT_ROOT: Final = Rule("CO1211", "Project in a directory")

# Fields
UNKNOWN_FIELD: Final = Rule("CO1301", "unknown field")
MISSING_FIELD: Final = Rule("CO1302", "missing field")
WRONG_TYPE: Final = Rule("CO1303", "wrong type")
NOT_ALLOWED: Final = Rule("CO1304", "value not allowed")
MALFORMED: Final = Rule("CO1305", "text not of the required form")
OUT_OF_RANGE: Final = Rule("CO1306", "number out of range")
WRONG_SIZE: Final = Rule("CO1307", "too long or too many")
BAD_DURATION: Final = Rule("CO1308", "not a duration")
DURATION_OUT_OF_RANGE: Final = Rule("CO1309", "duration out of range")
BAD_LABEL_KEY: Final = Rule("CO1310", "label or annotation key not allowed")
NO_SCHEDULE: Final = Rule("CO1311", "nothing in the schedule")
NEEDS_FIELD: Final = Rule("CO1312", "field has no effect alone")
SECRET: Final = Rule("CO1313", "secret in a manifest")
CAP_BELOW_INITIAL: Final = Rule("CO1314", "cap below initial wait", Severity.WARNING)
NO_EFFECT: Final = Rule("CO1315", "setting without effect", Severity.WARNING)
CONTRADICTION: Final = Rule("CO1316", "settings contradict each other")
EMPTY_WINDOW: Final = Rule("CO1317", "window ends where it begins")
JITTER_TOO_LONG: Final = Rule("CO1318", "jitter longer than the interval", Severity.WARNING)
NOT_ONE_ENTRY: Final = Rule("CO1319", "entry does not say exactly one thing")
IN_THE_PAST: Final = Rule("CO1320", "nothing left to do", Severity.WARNING)
LABEL_REQUIRED: Final = Rule("CO1321", "label that the Project requires is missing")
QUEUE_NOT_ALLOWED: Final = Rule("CO1322", "queue that the Project does not allow")
NEITHER_TRUE_NOR_FALSE: Final = Rule("CO1323", "annotation that means nothing", Severity.WARNING)
NOT_ONE_RUN: Final = Rule("CO1324", "run does not say exactly one thing")
BAD_URL: Final = Rule("CO1325", "URL not allowed")
HEADER_NOT_ALLOWED: Final = Rule("CO1326", "header not allowed")

# Calendars and task groups; those up to CO1409 are raised by `cron_observer.schedule` too
UNKNOWN_COUNTRY: Final = Rule("CO1401", "unknown country")
UNKNOWN_SUBDIVISION: Final = Rule("CO1402", "unknown subdivision")
UNKNOWN_CALENDAR: Final = Rule("CO1403", "unknown calendar")
CALENDAR_CYCLE: Final = Rule("CO1404", "calendar that contains itself")
BAD_DATE: Final = Rule("CO1405", "not a date")
RANGE_REVERSED: Final = Rule("CO1406", "range ends before it begins")
DAMAGED_CALENDAR: Final = Rule("CO1407", "stored calendar cannot be read")
NO_CALENDAR_FILE: Final = Rule("CO1408", "calendar file missing")
CALENDAR_TOO_LARGE: Final = Rule("CO1409", "calendar too large")
BAD_CALENDAR_PATH: Final = Rule("CO1410", "path of a calendar file not allowed")
BAD_CALENDAR_FILE: Final = Rule("CO1411", "calendar file cannot be read")
EVENT_LEFT_OUT: Final = Rule("CO1412", "event left out", Severity.WARNING)
UNKNOWN_GROUP: Final = Rule("CO1413", "unknown task group")
NOT_CHECKED: Final = Rule("CO1414", "reference not checked", Severity.WARNING)

# The source as a whole, by itself and against what is in force
TOO_MANY_TASKS: Final = Rule("CO1508", "project has no room for more tasks")
SECOND_PROJECT: Final = Rule("CO1509", "source has more than one Project")

RULES: Final = {rule.code: rule for rule in tuple(globals().values()) if isinstance(rule, Rule)}

"""Manifests for tests: a valid one to start from, and hypothesis strategies for many layouts and changes."""

from __future__ import annotations

import json
import re
import string
from typing import Any

from hypothesis import strategies as st

from cron_observer.manifest import DELETE

HEAD = "apiVersion: cron-observer/v1\nkind: Task\n"
SMALLEST = HEAD + 'metadata: {name: nightly-export}\nspec:\n  schedule: {cron: "30 2 * * 1-5"}\n'


def task(spec: str, name: str = "nightly-export") -> str:
    """Return a manifest whose spec has these lines, already indented by two."""
    return f"{HEAD}metadata:\n  name: {name}\nspec:\n{spec}"


# -- values -----------------------------------------------------------------------------------------------

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_AWKWARD = """plain|two words||yes|null|12:30|0777|1e3|2026-01-01|a: b|x #y|it's|"q"|- dash|* star|ü ñ 日|a,b|{x}|~|-
trailing | leading|=|<<|@at|%p|`t`|back\\slash|http://h/p?q=1|# no comment|a:|!|tab\there|?|[|a]|> x""".replace(
    "\n", "|"
)
_words = st.sampled_from([*_AWKWARD.split("|"), "line\nbreak\n", "k: v\nother\n", "\n", "no end\nhere", "a\n\nb\n"])
_texts = st.one_of(_words, st.text(alphabet=st.characters(codec="utf-8", exclude_categories=_HIDDEN), max_size=12))
_scalars = st.one_of(_texts, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.floats(-1e6, 1e6))
_keys = st.one_of(
    st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=6),
    st.sampled_from(["a b", "on", "1", "null", "x:y", "ü", "#k", "", "a, b"]),
)
json_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=3)),
    max_leaves=6,
)
_durations = st.sampled_from(["30s", "10m", "1h", "2h", "90s"])
#: Each holds the hours of the expressions below.
_windows = st.fixed_dictionaries(
    {"from": st.sampled_from(["00:00", "00:30"]), "to": st.sampled_from(["06:00", "24:00"])},
    optional={"days": st.sampled_from([["sun-sat"], ["mon", "wed-fri"]])},
)
_names = st.lists(st.sampled_from(["sale", "weekdays"]), max_size=2, unique=True)
_schedules = st.fixed_dictionaries(
    {"cron": st.one_of(st.just("*/5 * * * *"), st.lists(st.sampled_from(["0 1 * * *", "0 2 * * *"]), min_size=1))},
    optional={
        "timezone": st.sampled_from(["UTC", "Europe/Berlin"]),
        "every": st.sampled_from(["15m", "1h"]),
        "dst": st.fixed_dictionaries({}, optional={"gap": st.just("skip"), "overlap": st.just("both")}),
        "windows": st.lists(_windows, max_size=2),
        "calendars": st.fixed_dictionaries({}, optional={"include": _names, "exclude": st.just(["holidays"])}),
        "jitter": st.one_of(st.none(), _durations),
        "startAt": st.sampled_from([None, "2026-01-01T00:00:00"]),
    },
)
specs = st.fixed_dictionaries(
    {"schedule": _schedules},
    optional={
        "description": _texts,
        "suspend": st.booleans(),
        "queue": st.sampled_from(["default", "reports"]),
        "priority": st.integers(0, 9),
        "payload": json_values,
        "group": st.sampled_from([None, "billing"]),
        "catchup": st.fixed_dictionaries(
            {},
            optional={
                "policy": st.sampled_from(["none", "all"]),
                "window": st.one_of(st.none(), _durations),
                "maxRuns": st.integers(1, 20),
            },
        ),
        "onResume": st.sampled_from(["skip", "last"]),
        "maxLateness": st.one_of(st.none(), _durations),
        "overlap": st.sampled_from(["skip", "buffer_one", "allow_all"]),
        "startDeadline": st.one_of(st.none(), _durations),
        "timeout": _durations,
        "retries": st.fixed_dictionaries({}, optional={"max": st.integers(0, 9), "initial": _durations}),
        "run": st.just({"external": {}}),
    },
)
_labels = st.dictionaries(st.sampled_from(["team", "tier", "x.y/z"]), st.sampled_from(["billing", "1", ""]), max_size=3)

changes = st.lists(
    st.one_of(
        st.tuples(st.just("/timeout"), st.one_of(_durations, st.just(DELETE))),
        st.tuples(st.just("/description"), st.one_of(_texts, st.just(DELETE))),
        st.tuples(st.just("/priority"), st.one_of(st.integers(0, 9), st.just(DELETE))),
        st.tuples(st.just("/startDeadline"), st.one_of(_durations, st.none(), st.just(DELETE))),
        st.tuples(st.just("/payload"), st.one_of(json_values, st.just(DELETE))),
        st.tuples(st.just("/retries/max"), st.one_of(st.integers(0, 9), st.just(DELETE))),
        st.tuples(st.just("/retries"), st.one_of(st.just({"max": 4, "cap": "20m"}), st.just(DELETE))),
        st.tuples(st.just("/catchup/window"), st.one_of(_durations, st.none(), st.just(DELETE))),
        st.tuples(st.just("/catchup/policy"), st.sampled_from(["last", "all", DELETE])),
        st.tuples(st.just("/schedule/windows"), st.one_of(st.lists(_windows, max_size=3), st.just(DELETE))),
        st.tuples(st.just("/schedule/calendars/include"), st.one_of(_names, st.just(DELETE))),
        st.tuples(st.just("/schedule/calendars"), st.one_of(st.just({"exclude": ["holidays"]}), st.just(DELETE))),
        st.tuples(st.just("/schedule/dst/gap"), st.sampled_from(["skip", "shift", DELETE])),
        st.tuples(st.just("/group"), st.sampled_from(["billing", None, DELETE])),
        st.tuples(
            st.just("/schedule/cron"),
            st.one_of(
                st.just("7 7 * * *"), st.lists(st.sampled_from(["0 1 * * *", "0 2 * * *", "5 5 * * *"]), min_size=1)
            ),
        ),
        st.tuples(st.just("/schedule/timezone"), st.one_of(st.just("Asia/Tokyo"), st.just(DELETE))),
        st.tuples(st.just("/schedule"), st.just({"every": "15m"})),
        st.tuples(st.just("/labels/team"), st.one_of(st.just("ops"), st.just("yes"), st.just(DELETE))),
        st.tuples(st.just("/run"), st.one_of(st.just({"external": {}}), st.just(DELETE))),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda change: change[0].split("/")[1],
)


@st.composite
def altered(draw: Any, value: Any) -> Any:
    """Draw something near to a value: entries changed, removed and added anywhere in it."""
    if isinstance(value, dict):
        kept = {key: draw(altered(item)) for key, item in value.items() if draw(st.integers(0, 3))}
        return kept | draw(st.dictionaries(_keys, _scalars, max_size=1))
    if isinstance(value, list):
        kept_items = [draw(altered(item)) for item in value if draw(st.integers(0, 3))]
        at = draw(st.integers(0, len(kept_items)))
        return [*kept_items[:at], *draw(st.lists(_scalars, max_size=1)), *kept_items[at:]]
    return draw(_scalars) if draw(st.booleans()) else value


# -- layouts ----------------------------------------------------------------------------------------------


_FIELDS = (
    {"apiVersion", "kind", "metadata", "name", "labels", "spec", "schedule", "cron", "every", "timezone"}
    | {"description", "suspend", "queue", "priority", "payload", "catchup", "policy", "window", "overlap"}
    | {"startDeadline", "timeout", "retries", "max", "initial", "run", "external"}
)


class Layout:
    """Writes a value as YAML in one of the many ways that people do, as `draw` decides."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.step = draw(st.sampled_from([2, 4]))
        self.lines: list[str] = []

    def often(self, of: int = 3) -> bool:
        """Decide something: true once in `of`."""
        return bool(self.draw(st.integers(1, of)) == 1)

    def scalar(self, value: Any, *, plain: bool = True) -> str:
        """Write a scalar in one of its styles."""
        if not isinstance(value, str):
            return json.dumps(value) if value is not None else str(self.draw(st.sampled_from(["null", "~"])))
        styles = ['"']
        if value.isprintable() and "\n" not in value:
            styles.append("'")
            if plain and re.fullmatch(r"[a-z][a-z ]*[a-z]", value) and value not in ("null", "true", "false"):
                styles.append("")
        style = self.draw(st.sampled_from(styles))
        if style == '"':
            quoted = json.dumps(value, ensure_ascii=False)
            return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
        return "'" + value.replace("'", "''") + "'" if style else value

    def flow(self, value: Any) -> str:
        """Write any value in flow style."""
        if isinstance(value, dict):
            inner = (f"{self.scalar(key, plain=False)}: {self.flow(item)}" for key, item in value.items())
            return "{" + self.draw(st.sampled_from([", ", " , "])).join(inner) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(self.flow(item) for item in value) + "]"
        return self.scalar(value)

    def comment(self) -> str:
        """Return nothing, or a comment for the end of a line."""
        return str(self.draw(st.sampled_from(["", "", "", "  # why", " # a: b"])))

    def between(self, indent: int) -> None:
        """Put nothing, an empty line or a comment between two entries."""
        kind = self.draw(st.integers(0, 7))
        if kind == 0:
            self.lines.append("")
        elif kind == 1:
            self.lines.append(" " * indent + "# about the next")

    def block(self, value: Any, indent: int, prefix: str = "") -> None:
        """Write a mapping or list that is not empty as a block; `prefix` stands before its first line."""
        pairs = list(value.items()) if isinstance(value, dict) else [(None, item) for item in value]
        for number, (key, item) in enumerate(pairs):
            if number:
                self.between(indent)
            margin = prefix if not number and prefix else " " * indent
            if key is None:
                self.item(item, indent, margin)
            else:
                self.entry(key, item, indent, margin)

    def entry(self, key: str, value: Any, indent: int, margin: str) -> None:
        """Write one entry of a block mapping."""
        name = key if key in _FIELDS else self.scalar(key)
        if isinstance(value, dict | list) and value and not self.often():
            self.lines.append(f"{margin}{name}:{self.comment()}")
            dedented = isinstance(value, list) and self.often(2)
            self.block(value, indent if dedented else indent + self.step)
        elif isinstance(value, str) and re.fullmatch(r"[a-z][^\n]*\n[a-z]\S*\n", value) and value.isascii():
            self.lines.append(f"{margin}{name}: |")
            self.lines += [" " * (indent + self.step) + line for line in value[:-1].split("\n")]
        elif value is None and self.often():
            self.lines.append(f"{margin}{name}:{self.comment()}")
        else:
            self.lines.append(f"{margin}{name}: {self.flow(value)}{self.comment()}")

    def item(self, value: Any, indent: int, margin: str) -> None:
        """Write one item of a block list."""
        if isinstance(value, dict) and value and self.often(2):
            self.block(value, indent + 2, margin + "- ")
        else:
            self.lines.append(f"{margin}- {self.flow(value)}{self.comment()}")


@st.composite
def documents(draw: Any, name: str = "nightly-export") -> tuple[dict[str, Any], str]:
    """Draw the value of a Task and one way of writing it, without a marker, ended by a line feed."""
    metadata: dict[str, Any] = {"name": name}
    if draw(st.booleans()):
        metadata["labels"] = draw(_labels)
    value = {"apiVersion": "cron-observer/v1", "kind": "Task", "metadata": metadata, "spec": draw(specs)}
    layout = Layout(draw)
    if draw(st.integers(1, 10)) == 1:
        layout.lines.append(layout.flow(value))
    else:
        layout.block(value, 0)
    return value, "\n".join(layout.lines) + "\n"


@st.composite
def files(draw: Any) -> tuple[list[dict[str, Any]], str]:
    """Draw the values and the text of a file of one to three documents, with LF or CRLF, with or without its end."""
    drawn = [draw(documents(name)) for name in ("first", "second", "third")[: draw(st.integers(1, 3))]]
    text = draw(st.sampled_from(["", "# about this file\n", "---\n", "\ufeff"]))
    text += draw(st.sampled_from(["---\n", "--- # next\n", "...\n---\n"])).join(written for _, written in drawn)
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    if draw(st.integers(1, 4)) == 1:
        text = text.replace("\n", "\r\n")
    return [value for value, _ in drawn], text


# -- patches ----------------------------------------------------------------------------------------------


def applied(text: str, patch: str) -> str | None:
    """Apply a unified diff of one file strictly, at the very lines it names; None where it deletes the file."""
    old = re.findall(r"[^\n]*\n|[^\n]+\Z", text)
    hunks = re.split(r"^(?=@@ )", patch, flags=re.MULTILINE)
    new: list[str] = []
    at = 0
    for hunk in hunks[1:]:
        head, *lines = re.findall(r"[^\n]*\n", hunk)
        found = re.match(r"@@ -(\d+)(?:,(\d+))? \+", head)
        assert found is not None
        start = int(found[1]) - (found[2] != "0")
        new += old[at:start]
        at = start
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            content = line[1:].removesuffix("\n") if following.startswith("\\") else line[1:]
            if line[0] in " -":
                assert old[at] == content
                at += 1
            if line[0] in " +":
                new.append(content)
    new += old[at:]
    if "\ndeleted file mode" in patch:
        assert not new
        return None
    return "".join(new)

"""The YAML loader: what it reads, what it refuses, and that nothing makes it raise."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer.manifest import parse
from cron_observer.manifest.loader import decode, load
from cron_observer.manifest.nodes import find, parts, pointer
from cron_observer.model import ParsedFile
from support.manifests import SMALLEST, task

SCHEDULE = "  schedule: {every: 1m}\n"


def value(text: str) -> Any:
    """Return the value of the only document of a text without problems."""
    (document,) = load(text).documents
    assert document.problems == []
    assert document.root is not None
    return document.root.value


def found(text: str | bytes) -> list[tuple[str, int | None, int | None]]:
    """Return code, line and column of each finding of a file."""
    data = text if isinstance(text, bytes) else text.encode()
    return [(one.code, one.line, one.column) for one in parse("a.yaml", data).findings]


def codes(text: str | bytes) -> set[str]:
    """Return the codes of the findings of a file."""
    return {code for code, _, _ in found(text)}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("12:30", "12:30"),
        ("on", "on"),
        ("no", "no"),
        ("y", "y"),
        ("2026-12-25", "2026-12-25"),
        ("2001-99-99", "2001-99-99"),
        ("0777", "0777"),
        ("08", "08"),
        ("1_000", "1_000"),
        ("=", "="),
        ("1:30", "1:30"),
        ("1h", "1h"),
        ("+", "+"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-5", -5),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.0", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("'1'", "1"),
        ('"true"', "true"),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, read: object) -> None:
    """Plain scalars follow the core schema of YAML 1.2; dates, times and leading zeros stay text."""
    got = value(f"a: {written}\n")["a"]

    assert (type(read), read) == (type(got), got)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ("CO1104", 3, 1)),
        ("a: {x: 1, x: 2}\n", ("CO1104", 1, 11)),
        ("1: a\n", ("CO1109", 1, 1)),
        ("1.0: a\n", ("CO1109", 1, 1)),
        ("true: a\n", ("CO1109", 1, 1)),
        ("? [a]\n: b\n", ("CO1109", 1, 3)),
        ("a:\n\tb: 1\n", ("CO1103", 2, 1)),
        ("a: &x 1\n", ("CO1105", 1, 4)),
        ("a: *x\n", ("CO1105", 1, 4)),
        ("&a [*a]\n", ("CO1105", 1, 1)),
        ("<<: {a: 1}\n", ("CO1106", 1, 1)),
        ("a: !!python/object/apply:os.system [id]\n", ("CO1107", 1, 4)),
        ("a: !Foo x\n", ("CO1107", 1, 4)),
        ("a: ! x\n", ("CO1107", 1, 4)),
        ("a: !!set {x}\n", ("CO1107", 1, 4)),
        ('a: !!binary "$$$"\n', ("CO1107", 1, 4)),
        ("%YAML 9.9\n---\na: 1\n", ("CO1108", 1, 1)),
        ("# c\n%TAG ! tag:yaml.org,2002:python/\n---\na: 1\n", ("CO1108", 2, 1)),
        ("a: " + "9" * 5000, ("CO1116", 1, 4)),
        ("a: 0x" + "f" * 5000, ("CO1116", 1, 4)),
        ("a: 9223372036854775808", ("CO1116", 1, 4)),
        ("a: 1.0e+999", ("CO1116", 1, 4)),
        ("a: .inf", ("CO1116", 1, 4)),
        ("a: -.INF", ("CO1116", 1, 4)),
        ("a: .nan", ("CO1116", 1, 4)),
        ('a: "x\\0y"', ("CO1115", 1, 4)),
        ('a: "\\e[31m"', ("CO1115", 1, 4)),
        ('a: "\\x85"', ("CO1115", 1, 4)),
        ('"\\0": a', ("CO1115", 1, 1)),
        ('a: "\\ud800"', ("CO1101", 1, 7)),
        ('a: "\\q"', ("CO1101", 1, 5)),
        ("x" * 257 + ": 1", ("CO1113", 1, 1)),
        ("a: " + "x" * 65537, ("CO1114", 1, 4)),
        ("a: 'x\n\n", ("CO1101", 1, 4)),
        ("a: [b\nc: d\n", ("CO1101", 2, 2)),
        ("a: b: c\n", ("CO1101", 1, 5)),
        ("a: 1\nb\nc: 2\n", ("CO1101", 2, 1)),
        ("a: `x`\n", ("CO1101", 1, 4)),
        ("a: \u202ex\n", ("CO1117", 1, 4)),
    ],
)
def test_what_is_refused_is_refused_where_it_stands(text: str, expected: tuple[str, int, int]) -> None:
    """Each refusal names the line and column of what is wrong."""
    assert expected in found(text)


@pytest.mark.parametrize(
    ("data", "code", "line", "column"),
    [
        (b"\xff\xfea\x00", "CO1002", 1, 1),
        (b"a: 1\nb: \xff", "CO1002", 2, 4),
        (b"a: \xed\xa0\x80", "CO1002", 1, 4),
        (b"a: 1\nb\x00", "CO1003", 2, 2),
        (b"a: 1\rb: 2", "CO1003", 1, 5),
        ("a: \u2028".encode(), "CO1003", 1, 4),
        (b"a: \x1b[31m", "CO1003", 1, 4),
    ],
)
def test_bytes_that_are_no_text(data: bytes, code: str, line: int, column: int) -> None:
    """A file that is not clean UTF-8 is not read at all, and the place is said."""
    parsed = parse("a.yaml", data)

    assert [(code, line, column)] == found(data)
    assert not parsed.parseable


def test_a_byte_order_mark_is_dropped() -> None:
    """A byte order mark in front neither hinders reading nor moves the columns."""
    parsed = parse("a.yaml", b"\xef\xbb\xbf" + SMALLEST.encode())

    assert parsed.findings == ()
    assert [one.line for one in parsed.tasks] == [3]


def test_a_duplicate_key_names_both_places() -> None:
    """The second key is underlined, the message says where the first one is."""
    (one, *_) = parse("a.yaml", task(SCHEDULE + "  timeout: 1h\n  timeout: 2h\n").encode()).findings

    assert (one.line, one.column) == (8, 3)
    assert "7:3" in one.message
    assert one.pointer == "/spec/timeout"


@pytest.mark.parametrize(
    ("line", "column", "hint"),
    [
        ("cron: */5 * * * *", 15, 'write "*/5 * * * *"'),
        ("cron: * * * * *  # always", 15, 'write "* * * * *"'),
        ("cron: [*/5 * * * *, '1 * * * *']", 16, 'write "*/5 * * * *"'),
        ("cron: @daily", 15, 'write "@daily"'),
        ("cron: *5 * * * *", 15, 'write "*5 * * * *"'),
        ("{cron: */5 * * * *}", 16, 'write "*/5 * * * *"'),
    ],
)
def test_a_cron_expression_without_quotes_is_recognised(line: str, column: int, hint: str) -> None:
    """YAML takes `*` for an alias; the finding says what is really wrong and what to write."""
    (one,) = parse("a.yaml", task(f"  schedule:\n        {line}\n").encode()).findings

    assert ("CO1102", 7, column, hint) == (one.code, one.line, one.column, one.hint)
    assert "quote cron expressions" in one.message


def test_a_cron_expression_in_a_list_without_quotes_is_recognised() -> None:
    """The item of a block list is recognised as well."""
    assert ("CO1102", 8, 7) in found(task("  schedule:\n    cron:\n    - */5 * * * *\n"))


def test_a_comma_that_ends_a_cron_expression_is_explained() -> None:
    """In braces a comma ends an expression; its rest looks like an unknown field, and the hint says why."""
    findings = parse("a.yaml", task("  schedule: {cron: 0 0 1,15 * *}\n").encode()).findings

    assert any("quote the cron expression" in (one.hint or "") for one in findings)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 30_000,
        "{a: " * 8_000,
        "- " * 20_000,
        "? " * 20_000,
        "a:\n" + "\n".join(" " * i + "b:" for i in range(1, 300)),
    ],
)
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    """Nesting beyond 32 stops the reading; nothing recurses."""
    started = time.process_time()
    seen = codes(text)

    assert "CO1110" in seen
    assert time.process_time() - started < 2


def test_the_deepest_nesting_is_read() -> None:
    """32 levels are read, 33 are not."""
    assert load("[" * 32 + "]" * 32).documents[0].problems == []
    assert load("[" * 33 + "]" * 33).documents[0].problems != []


def test_aliases_cannot_explode() -> None:
    """A thousand million laughs are a finding, and take no time."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]

    assert {"CO1105"} <= codes("\n".join(lines))


def test_a_document_of_too_many_values_is_refused() -> None:
    """Reading stops at 20,000 keys and values."""
    assert "CO1111" in codes("a:\n" + "- x\n" * 20_000)


def test_a_file_of_too_many_documents_is_refused() -> None:
    """200 documents are read, what follows is a finding and holds removals."""
    text = "".join(f"---\n{SMALLEST.replace('nightly', f'n{number}')}" for number in range(201))
    parsed = parse("a.yaml", text.encode())

    assert len(parsed.tasks) == 200
    assert [one.code for one in parsed.findings] == ["CO1112"]
    assert not parsed.parseable


def test_a_broken_document_leaves_its_neighbours() -> None:
    """Documents are told apart by their markers, so a quote that is never closed ends with its document."""
    second = SMALLEST.replace("nightly-export", "second")
    parsed = parse("a.yaml", f"{SMALLEST}---\na: 'x\n---\n{second}".encode())

    assert [one.name for one in parsed.tasks] == ["nightly-export", "second"]
    assert [(one.code, one.line, one.column) for one in parsed.findings] == [("CO1101", 7, 4)]
    assert [one.document for one in parsed.tasks] == [0, 2]
    assert not parsed.parseable


def test_a_marker_inside_a_text_is_no_marker() -> None:
    """Dashes that do not begin a line do not end a document."""
    parsed = parse("a.yaml", task(SCHEDULE + "  payload: |\n    ---\n    x\n").encode())

    assert parsed.tasks[0].spec["payload"] == "---\nx\n"


def test_lines_end_with_lf_or_crlf() -> None:
    """Carriage returns before line feeds change neither values nor places."""
    text = task(SCHEDULE + "  payload: |\n    one\n    two\n")

    assert parse("a.yaml", text.encode()) == parse("a.yaml", text.replace("\n", "\r\n").encode())


def test_positions_cover_keys_and_values() -> None:
    """Every value knows where it and its key begin and end."""
    stream = load('a:\n  b: [x, "yé"]\n')
    node = find(stream.documents[0].root, "/a/b/1")
    entry = find(stream.documents[0].root, "/a/b")

    assert node is not None
    assert entry is not None
    assert stream.text[node.start : node.end] == '"yé"'
    assert stream.text[entry.key_start : entry.key_end] == "b"
    assert stream.place(node.start) == (2, 10)


def test_pointers_are_those_of_rfc_6901() -> None:
    """Slashes and tildes in keys are escaped and read back."""
    path = ["a/b", "~", "", "0"]

    assert pointer(path) == "/a~1b/~0//0"
    assert path == parts(pointer(path))


def _holds(parsed: ParsedFile) -> None:
    assert parsed.findings or parsed.tasks
    for one in parsed.findings:
        assert one.message
        assert one.line is None or one.line >= 1
        assert one.column is None or one.column >= 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    """Whatever the bytes, the answer is a list of findings."""
    _holds(parse("a.yaml", data))


_PIECES = """apiVersion: cron-observer/v1\n|kind: Task\n|metadata: |{|}|[|]|: |- |\n|  |    |name: x|spec:|schedule:
|cron|*/5|"|'|&a|*a|!!x|---\n|...\n|%YAML 1.1\n|#|, |\t|\\|\\0|>|\\|-\n|1|~|<<|é|\u2028|every: 1m|payload: |timeout: 1h
|@|`|?"""


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_PIECES.split("|")), max_size=40))
def test_no_text_makes_it_raise(pieces: list[str]) -> None:
    """Pieces of manifests and of YAML's grammar in any order give findings or tasks, never an exception."""
    _holds(parse("a.yaml", "".join(pieces).encode()))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SMALLEST)), st.integers(0, 20), st.sampled_from(_PIECES.split("|")))
def test_no_damage_makes_it_raise(at: int, cut: int, piece: str) -> None:
    """A valid manifest with a part cut out and another put in is read or refused."""
    _holds(parse("a.yaml", (SMALLEST[:at] + piece + SMALLEST[at + cut :]).encode()))


def test_decode_says_how_far_it_came() -> None:
    """The place of a byte that is not UTF-8 is where the text before it ends."""
    text, problem = decode("é: ".encode() + b"\xfe")

    assert text == "é: "
    assert problem is not None
    assert problem.start == 3
    assert "byte 4" in problem.message


def test_a_directive_refuses_the_document_that_follows() -> None:
    """What a directive would change about its document is not known: that one is refused, and no other."""
    b, c, d = (task(SCHEDULE, name) for name in "bcd")
    text = f"{SMALLEST}---\n{b}...\n%YAML 9.9\n---\n{c}---\n{d}"
    parsed = parse("a.yaml", text.encode())
    assert {one.code for one in parsed.findings} == {"CO1108"}
    assert "c" not in [one.name for one in parsed.tasks]
    assert parsed.broken_names == ("c",)
    assert len(parsed.tasks) == 3

"""Output becomes lines: whole, in order, none longer than the server stores."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from cron_observer_sdk.lines import LINE_BYTES, Line, encode_line, level_name, make_lines, note
from cron_observer_sdk.output import Output
from cron_observer_sdk.reporter import Reporter


class Pages:
    """Takes lines as a reporter does."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def log_lines(self, lines: Any) -> None:
        """Keep them."""
        self.lines.extend(lines)


def cut(*pieces: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    """Feed pieces of streams; return (level, message) of each line."""
    pages = Pages()
    output = Output(cast("Reporter", pages))
    for number, (stream, data) in enumerate(pieces):
        output.take(stream, data, float(number))
    output.finish()
    return [(line.level, cast("bytes", line.message)) for line in pages.lines]


def test_lines_are_joined_over_reads_and_kept_apart_by_stream() -> None:
    """A line that came in pieces is one line, whatever the other stream says meanwhile."""
    pieces = (("stdout", b"one\ntw"), ("stderr", b"oops"), ("stdout", b"o\n\n"), ("stderr", b"!\r\nlast"))
    assert cut(*pieces) == [("INFO", b"one"), ("INFO", b"two"), ("INFO", b""), ("WARN", b"oops!"), ("WARN", b"last")]


def test_a_line_has_the_time_at_which_it_began() -> None:
    """The time of a line is that of its first byte."""
    pages = Pages()
    output = Output(cast("Reporter", pages))
    output.take("stdout", b"a\nbe", 1.0)
    output.take("stdout", b"gun\nc\n", 2.0)
    assert [(line.at, line.message) for line in pages.lines] == [(1.0, b"a"), (1.0, b"begun"), (2.0, b"c")]


@pytest.mark.parametrize("piece", [1, 7, 1000, 100_000])
def test_endless_lines_are_cut_without_loss(piece: int) -> None:
    """A megabyte without a line end becomes lines of 16 KiB at most, together byte for byte the same."""
    text = ("äö€𝄞x" * 20_000).encode()[: 10_000 if piece < 7 else None]
    pieces = [("stdout", text[at : at + piece]) for at in range(0, len(text), piece)]
    lines = [message for _, message in cut(*pieces)]
    assert b"".join(lines) == text
    assert max(map(len, lines)) <= LINE_BYTES
    assert "\ufffd" not in "".join(line.decode("utf-8", "replace") for line in lines)


def test_binary_output_is_cut_and_encoded() -> None:
    """Bytes that are no UTF-8 still make entries that JSON can hold."""
    text = bytes(range(128, 192)) * 1000
    lines = cut(("stdout", text))
    assert b"".join(message for _, message in lines) == text
    for line in make_lines(0.0, "INFO", text, None):
        assert json.loads(encode_line(line))["level"] == "INFO"


def test_long_messages_of_work_are_cut_too() -> None:
    """A message in code has the same limit, counted in bytes."""
    lines = list(make_lines(0.0, "INFO", "€" * 10_000, {"n": 1}))
    assert [len(line.message) for line in lines] == [16383, 13617]
    assert b"".join(cast("bytes", line.message) for line in lines).decode() == "€" * 10_000


def test_entries_are_what_the_wire_wants() -> None:
    """An entry holds ts, level, message and, if there are any, fields."""
    (line,) = make_lines(1774746000.5, "WARN", 'say "hi"\x00', {"rows": 2})
    assert json.loads(encode_line(line)) == {
        "ts": "2026-03-29T01:00:00.500Z",
        "level": "WARN",
        "message": 'say "hi"\u2400',
        "fields": {"rows": 2},
    }
    (plain,) = make_lines(0.0, "INFO", "x", None)
    assert "fields" not in json.loads(encode_line(plain))


def test_fields_without_measure_are_cut() -> None:
    """Fields larger than a line become a piece of their text."""
    (line,) = make_lines(0.0, "INFO", "x", {"huge": "y" * 100_000})
    fields = json.loads(encode_line(line))["fields"]
    assert list(fields) == ["too_large"]
    assert fields["too_large"].startswith('{"huge":"yyy')


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("warning", "WARN"), ("CRITICAL", "ERROR"), ("Debug", "DEBUG"), ("loud", "INFO"),
        (10, "DEBUG"), (20, "INFO"), (25, "INFO"), (30, "WARN"), (50, "ERROR"),
    ],
)  # fmt: skip
def test_levels_of_others_have_a_place(given: str | int, level: str) -> None:
    """Names and numbers of logging become the four levels of the wire; unknown ones are INFO."""
    assert level_name(given) == level


def test_notes_say_whose_they_are() -> None:
    """A line by the SDK itself can be told from the work's."""
    assert json.loads(encode_line(note("dropped")))["fields"] == {"by": "cron-observer-sdk"}

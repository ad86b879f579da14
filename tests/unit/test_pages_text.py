"""Untrusted text on pages: escaped, and whatever deceives the eye is written out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer_api.pages.text import found, plain, prose, visible


def test_markup_is_escaped() -> None:
    """A tag in a message is shown, not obeyed."""
    assert visible("<script>alert(1)</script>&") == "&lt;script&gt;alert(1)&lt;/script&gt;&amp;"


@pytest.mark.parametrize(
    ("hidden", "sign"),
    [
        ("\x1b", "ESC"),
        ("\0", "NUL"),
        ("\r", "CR"),
        ("\x7f", "DEL"),
        ("\x9b", "U+009B"),
        ("\u202e", "U+202E"),
        ("\u2066", "U+2066"),
        ("\u200b", "U+200B"),
        ("\ufeff", "U+FEFF"),
        ("\ud800", "U+D800"),
        ("\U000e0041", "U+E0041"),
    ],
)
def test_hidden_characters_are_named(hidden: str, sign: str) -> None:
    """Controls, marks of direction, zero-width characters and lone surrogates each get a sign of their own."""
    assert visible(f"a{hidden}b") == f'a<span class="ctl">{sign}</span>b'
    assert plain(f"a{hidden}b") == f"a⟨{sign}⟩b"


def test_tabs_and_lines_stay() -> None:
    """Tabs and newlines are layout, not deceit."""
    assert visible("a\tb\nc") == "a\tb\nc"


@given(st.text())
def test_nothing_hidden_survives(text: str) -> None:
    """Whatever comes in, what goes out has no tag of the text's own and no hidden character."""
    shown = str(visible(text)).replace('<span class="ctl">', "").replace("</span>", "")
    assert not set("<>\x1b\0\u202e\u200f\u2066\ufeff\r") & set(shown)
    shown.encode("utf-8")


@given(st.text(), st.text(min_size=1, max_size=3))
def test_marking_loses_nothing(text: str, query: str) -> None:
    """A search marks matches and leaves the rest as it was."""
    assert str(found(text, query)).replace("<mark>", "").replace("</mark>", "") == str(visible(text))


def test_matches_are_marked_in_any_case() -> None:
    """The query is text, not a pattern, and case does not count."""
    assert found("A.b a.B axb", "a.b") == "<mark>A.b</mark> <mark>a.B</mark> axb"


def test_backticks_become_code() -> None:
    """What a message sets in backticks is set as code; an odd backtick is just one."""
    assert prose("unknown field `<x>`") == "unknown field <code>&lt;x&gt;</code>"
    assert prose("a ` b") == "a ` b"

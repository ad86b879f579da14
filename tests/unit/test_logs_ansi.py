"""Colours of terminals as classes, and nothing else."""

from __future__ import annotations

import pytest

from cron_observer_api.pages.ansi import coloured

SHOWN = {
    "plain <b>": "plain &lt;b&gt;",
    "\x1b[31mred\x1b[0m not": '<span class="af1">red</span> not',
    "\x1b[1;4;92mbold\x1b[22m less\x1b[m": '<span class="ab au af10">bold</span><span class="au af10"> less</span>',
    "\x1b[41mback\x1b[49mground": '<span class="ag1">back</span>ground',
    "\x1b[38;5;196mcube\x1b[0m": '<span class="af9">cube</span>',
    "\x1b[38;5;3mplain\x1b[39m.": '<span class="af3">plain</span>.',
    "\x1b[38;2;0;0;255mtrue\x1b[0m": '<span class="af12">true</span>',
    "\x1b[48;5;240mgrey\x1b[0m": '<span class="ag8">grey</span>',
    "\x1b[7mswapped\x1b[27m": '<span class="af0 ag7">swapped</span>',
    "grep\x1b[01;31m\x1b[Kfound\x1b[m\x1b[K it": 'grep<span class="ab af1">found</span> it',
    "\x1b[2Jcleared": '<span class="ctl">ESC</span>[2Jcleared',
    "\x1b]8;;http://x\x07link": '<span class="ctl">ESC</span>]8;;http://x<span class="ctl">BEL</span>link',
    "\x1b[31m<script>": '<span class="af1">&lt;script&gt;</span>',
    "\x1b[99999mx\x1b[38;5m.": "x.",
}


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_obeyed_and_what_is_shown(text: str) -> None:
    """Looks become classes, the rest of a line cleared is left out, everything else is text and made visible."""
    assert str(coloured(text)) == SHOWN[text]


def test_what_is_searched_for_is_marked_inside_a_colour() -> None:
    """A match is marked, whatever its colour."""
    assert str(coloured("\x1b[32mAll OK\x1b[0m ok", "ok")) == (
        '<span class="af2">All <mark>OK</mark></span> <mark>ok</mark>'
    )

"""Colours that programs write for terminals, as classes. Pure.

Only what changes the look of text is obeyed (SGR), and what clears the rest of a line is left out; every other
sequence is text, and shown as such. Colours beyond the sixteen become the nearest of those, which each theme chooses
so that they can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from cron_observer_api.pages.text import found

_SEQUENCE: Final = re.compile("\x1b\\[([0-9;:]{0,60})([mK])")

_STYLES: Final = {1: "ab", 2: "ad", 3: "ai", 4: "au", 9: "as"}
_ENDS: Final = {22: ("ab", "ad"), 23: ("ai",), 24: ("au",), 29: ("as",)}


@dataclass(slots=True)
class _Look:
    styles: frozenset[str] = frozenset()
    front: int | None = None
    back: int | None = None
    swapped: bool = False

    def classes(self) -> str:
        front, back = (self.back, self.front) if self.swapped else (self.front, self.back)
        if self.swapped:
            front, back = 0 if front is None else front, 7 if back is None else back
        said = sorted(self.styles)
        said += [] if front is None else [f"af{front}"]
        said += [] if back is None else [f"ag{back}"]
        return " ".join(said)


def coloured(text: str, query: str = "") -> Markup:
    """Return `text` as HTML, its colours as classes, with every occurrence of `query` inside one colour marked."""
    if "\x1b[" not in text:
        return found(text, query)
    out, at, look = [], 0, _Look()
    for match in _SEQUENCE.finditer(text):
        out.append(_piece(text[at : match.start()], query, look))
        at = match.end()
        if match[2] == "m":
            _obey(look, match[1])
    return Markup("").join([*out, _piece(text[at:], query, look)])


def _piece(text: str, query: str, look: _Look) -> Markup:
    shown = found(text, query)
    classes = look.classes()
    return Markup('<span class="{}">{}</span>').format(classes, shown) if classes and text else shown


def _obey(look: _Look, said: str) -> None:
    codes = iter([int(code or 0) if len(code) < 4 else -1 for code in re.split("[;:]", said)])
    for code in codes:
        if code == 0:
            look.styles, look.front, look.back, look.swapped = frozenset(), None, None, False
        elif code in _STYLES:
            look.styles |= {_STYLES[code]}
        elif code in _ENDS:
            look.styles -= set(_ENDS[code])
        elif code in (7, 27):
            look.swapped = code == 7
        elif code in (38, 48):
            colour = _further(codes)
            look.front, look.back = (colour, look.back) if code == 38 else (look.front, colour)
        else:
            _plain(look, code)


def _plain(look: _Look, code: int) -> None:
    for first, bright in ((30, 90), (40, 100)):
        colour = (
            code - first if first <= code < first + 8 else code - bright + 8 if bright <= code < bright + 8 else None
        )
        if code == first + 9:
            colour = None
        elif colour is None:
            continue
        if first == 30:
            look.front = colour
        else:
            look.back = colour


def _further(codes: Iterator[int]) -> int | None:
    """Read a colour of 256 or of all, and return the nearest of sixteen."""
    kind = next(codes, 0)
    if kind == 5:
        number = next(codes, -1)
        if 0 <= number < 16:
            return number
        if 232 <= number < 256:
            return _nearest([(number - 232) * 10 + 8] * 3)
        number -= 16
        return _nearest([51 * (number // 36), 51 * (number // 6 % 6), 51 * (number % 6)]) if 0 <= number < 216 else None
    if kind == 2:
        rgb = [next(codes, -1), next(codes, -1), next(codes, -1)]
        return _nearest(rgb) if min(rgb) >= 0 else None
    return None


def _nearest(rgb: Sequence[int]) -> int:
    high, low = max(rgb), min(rgb)
    if high - low < 40:
        return 15 if low > 200 else 7 if low > 140 else 8 if high > 50 else 0
    number = sum(1 << bit for bit, value in enumerate(rgb) if value * 2 > high)
    return number + 8 if high > 200 else number

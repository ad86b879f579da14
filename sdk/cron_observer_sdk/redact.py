"""Patterns whose matches never leave the process, nor reach the spool."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: What stands in the place of a match.
MASK = "***"
#: A line without an end that is longer than this is left out where patterns are set: it cannot be judged whole.
UNBROKEN_BYTES = 1024 * 1024


class Redactor:
    """Replaces what matches one of some regular expressions by `MASK`, in texts and in the texts of JSON values."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Compile the patterns. Raise `ValueError` for one that is no regular expression, or may take for ever."""
        self._patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
            if compiled.fullmatch(""):
                raise ValueError(f"{pattern!r} matches nothing at all as well: it would hide everything")
            if _may_take_for_ever(pattern):
                raise ValueError(f"{pattern!r} repeats a repetition, and may take for ever: write a+ for (a+)+")
            self._patterns.append(compiled)

    def __bool__(self) -> bool:
        """Say whether there is anything to hide."""
        return bool(self._patterns)

    def text(self, text: str) -> str:
        """Return the text with every match hidden."""
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def line(self, text: bytes) -> bytes:
        """Return one whole line of output with every match hidden."""
        return self.text(text.decode("utf-8", "replace")).encode("utf-8") if self._patterns else text

    def value(self, value: Any) -> Any:
        """Return a JSON value with every match in its texts hidden; names of members are texts too."""
        if not self._patterns:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key) if isinstance(key, str) else key: self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value


def _may_take_for_ever(pattern: str) -> bool:
    """Say whether a pattern repeats what is itself nothing but an endless repetition, as ``(a+)+`` does.

    For a line that nearly matches, the ways to divide it double with each character, and nothing interrupts the search.
    """
    try:
        from re import _parser as parser  # type: ignore[attr-defined, unused-ignore]
    except ImportError:  # before Python 3.11
        import sre_parse as parser
    return _repeats_twice(parser.parse(pattern), parser.MAXREPEAT)


def _repeats_twice(part: Any, endless: Any) -> bool:
    """Look through what a pattern was parsed to: operators with their arguments, in lists and tuples."""
    part = getattr(part, "data", part)
    if not isinstance(part, (list, tuple)):
        return False
    if _is_repeat(part) and part[1][1] == endless:
        inner = _bare(part[1][2])
        needed = _bare([one for one in inner if not (_is_repeat(one) and one[1][0] == 0 and one[1][1] != endless)])
        if len(needed) == 1 and _is_repeat(needed[0]) and needed[0][1][1] == endless:
            return True
    return any(_repeats_twice(one, endless) for one in part)


def _bare(parts: Any) -> list[Any]:
    """Return the parts of what stands between brackets."""
    bare = list(parts)
    while len(bare) == 1 and str(bare[0][0]) == "SUBPATTERN":
        bare = list(bare[0][1][-1])
    return bare


def _is_repeat(part: Any) -> bool:
    """Say whether a part is an operator that repeats: (least, most, what)."""
    return isinstance(part, tuple) and len(part) == 2 and str(part[0]) in {"MAX_REPEAT", "MIN_REPEAT"}


#: Hides nothing.
PLAIN = Redactor()

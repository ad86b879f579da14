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
        """Compile the patterns. Raise `ValueError` where one is no regular expression."""
        self._patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
            if compiled.fullmatch(""):
                raise ValueError(f"{pattern!r} matches nothing at all as well: it would hide everything")
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


#: Hides nothing.
PLAIN = Redactor()

"""What a single text or number may be, whether it came as YAML or as JSON. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

from cron_observer.manifest import rules

MAX_KEY_CHARACTERS: Final = 256
MAX_TEXT_BYTES: Final = 64 * 1024  # 64 KiB of UTF-8 in one text
MAX_INTEGER: Final = 2**63 - 1  # whole numbers beyond it are lost by most JSON readers
MAX_DEPTH: Final = 32  # mappings and lists inside one another
MAX_NODES: Final = 20_000  # keys and values of one document

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_OCTAL: Final = re.compile(r"0o[0-7]+\Z")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE: Final = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
CONSTANTS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
#: Keys and tokens that can be known by their form; our own API keys among them.
#: Every repetition is bounded, so that no text takes long.
_SECRET_VALUE: Final = re.compile(
    r"(?<![A-Za-z0-9])((AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
    r"|glpat-[A-Za-z0-9_-]{20,99}|xox[abeoprs]-[A-Za-z0-9-]{10,255}|[sr]k_live_[A-Za-z0-9]{16,255}"
    r"|AIza[0-9A-Za-z_-]{35}|co_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}"
    r"|eyJ[A-Za-z0-9_-]{10,999}\.eyJ[A-Za-z0-9_-]{10,999}\.[A-Za-z0-9_-]{10}"
    r"|[a-z][a-z0-9+.-]{0,19}://[^\s/:@]{0,99}:[^\s/:@$<{*][^\s/@]{0,199}@)"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
)
#: Each alternative of it holds one of these, but for addresses with a password.
_SECRET_MARKS: Final = (
    *(b"AKIA", b"ASIA", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"xox"),
    *(b"k_live_", b"AIza", b"co_", b"eyJ", b"-----BEGIN "),
)
NUMERIC_START: Final = frozenset("0123456789+-.")


class Refusal(Exception):  # noqa: N818 - never leaves this room; it becomes a finding
    """A text or number that no manifest may hold."""

    def __init__(self, rule: rules.Rule, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.hint = hint


def resolve(text: str) -> str | int | float | bool | None:
    """Read a plain YAML 1.2 core scalar; raise `Refusal` for numbers that are infinite or too large.

    Dates, times, ``on``, ``1_000`` stay text. So does ``0777``: YAML 1.1 reads 511 and 1.2 reads 777,
    and who writes a leading zero mostly means the digits.
    """
    if text[:1] not in NUMERIC_START or not text:
        return CONSTANTS.get(text, text)
    if _INTEGER.match(text):
        return _integer(text, 10)
    if _FLOAT.match(text):
        return number(float(text))
    if _OCTAL.match(text):
        return _integer(text[2:], 8)
    if _HEX.match(text):
        return _integer(text[2:], 16)
    if _NOT_FINITE.match(text):
        raise Refusal(rules.BAD_NUMBER, "only finite numbers are allowed", "quote it if text is meant")
    return text


def _integer(digits: str, base: int) -> int:
    # Checked before int(): Python refuses, or takes long for, thousands of digits.
    if len(digits) > 64:
        raise _too_large()
    return integer(int(digits, base))


def integer(value: int) -> int:
    """Return `value`; raise `Refusal` beyond 64 bits."""
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise _too_large()
    return value


def number(value: float) -> float:
    """Return `value`; raise `Refusal` unless it is finite."""
    if not math.isfinite(value):
        raise _too_large()
    return value


def _too_large() -> Refusal:
    return Refusal(rules.BAD_NUMBER, "the number is too large: whole numbers have 64 bits", "quote it if text is meant")


def check_text(value: str) -> None:
    """Raise `Refusal` when a text is too long or holds characters that no field may hold."""
    if len(value) * 4 > MAX_TEXT_BYTES and len(value.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise Refusal(rules.TEXT_TOO_LONG, f"the text is longer than {MAX_TEXT_BYTES // 1024} KiB")
    found = _CONTROL.search(value)
    if found is not None:
        raise Refusal(
            rules.CONTROL_IN_TEXT,
            f"the text holds the control character U+{ord(found[0]):04X}",
            "only tab and line feed are allowed; encode binary data, for example as base64",
        )


def check_key(value: str) -> None:
    """Raise `Refusal` when a key is too long or holds characters that no field may hold."""
    if len(value) > MAX_KEY_CHARACTERS:
        raise Refusal(rules.KEY_TOO_LONG, f"the key is longer than {MAX_KEY_CHARACTERS} characters")
    check_text(value)


def has_bidi(value: str) -> bool:
    """Tell whether a text holds characters that reorder what a reader sees."""
    return _BIDI.search(value) is not None


def may_look_secret(json: bytes) -> bool:
    """Tell whether any text in a JSON text may be one that `looks_secret`; False is certain."""
    return any(mark in json for mark in _SECRET_MARKS) or (b"://" in json and b"@" in json)


def looks_secret(value: str) -> bool:
    """Tell whether a text holds a key, a token or an address with a password."""
    return _SECRET_VALUE.search(value) is not None


def concealed(text: str) -> str:
    """Return a text with three asterisks in place of each key, token and address with a password."""
    return _SECRET_VALUE.sub("***", text)


def shown(text: str, limit: int = 60) -> str:
    """Make `text` safe to show on one line: tokens concealed, control characters escaped, the end cut off."""
    text = concealed(text)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    point = ord(character)
    if point < 0x100:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\x{point:02x}")
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"

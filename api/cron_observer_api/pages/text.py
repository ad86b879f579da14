"""Untrusted text on its way into HTML: escaped, with characters that deceive made visible. Pure."""

from __future__ import annotations

import re
from typing import Final

from markupsafe import Markup, escape

#: Controls (C0 but tab and newline, DEL, C1), marks of direction, zero-width characters, lone surrogates.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


#: The names of the C0 controls.
_C0: Final = (
    *("NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR", "SO", "SI"),
    *("DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US"),
)


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return _C0[code]
    return "DEL" if code == 0x7F else f"U+{code:04X}"


def plain(text: object) -> str:
    """Return `text` with every hidden character written out, for titles and labels."""
    return _HIDDEN.sub(lambda match: f"⟨{_shown(match)}⟩", str(text))


def visible(text: object) -> Markup:
    """Return `text` as HTML: escaped, each hidden character as a small marked sign."""
    whole = str(text)
    if _HIDDEN.search(whole) is None:
        return escape(whole)
    out, at = [], 0
    for match in _HIDDEN.finditer(whole):
        out.append(escape(whole[at : match.start()]))
        out.append(Markup('<span class="ctl">{}</span>').format(_shown(match)))
        at = match.end()
    return Markup("").join([*out, escape(whole[at:])])


def found(text: str, query: str) -> Markup:
    """Return `text` as HTML like `visible`, with every occurrence of `query` marked, whatever its case."""
    if not query:
        return visible(text)
    out, at = [], 0
    for match in re.finditer(re.escape(query), text, re.IGNORECASE):
        out += [visible(text[at : match.start()]), Markup("<mark>{}</mark>").format(visible(match[0]))]
        at = match.end()
    return Markup("").join([*out, visible(text[at:])])


def prose(text: object) -> Markup:
    """Return a message as HTML like `visible`, with what stands between backticks as code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return visible(text)
    pieces = [
        visible(part) if n % 2 == 0 else Markup("<code>{}</code>").format(visible(part)) for n, part in enumerate(parts)
    ]
    return Markup("").join(pieces)

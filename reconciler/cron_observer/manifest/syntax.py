"""Say in our own words what a YAML parser choked on, and how to mend it. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from cron_observer.manifest import rules
from cron_observer.manifest.rules import Problem

#: From ``*`` or ``@`` to the end of something that has the shape of a cron expression.
_CRON_SHAPE: Final = re.compile(
    r"(\*[0-9*/,\-]*([ \t]+[0-9A-Za-z*/,\-][0-9A-Za-z*/,#\-]*){4,6}|@[a-z]+)(?=[ \t]*([\r\n,}\]#]|\Z))"
)
_CRON_KEY: Final = re.compile(r"(?:^|[\s{,])[\"']?cron[\"']?[ \t]*:[ \t]*(?:\[[^\]]*)?\Z")

_INDENT: Final = "check the indentation of this line and of the one above"
_TABS: Final = ("tabs cannot indent", "indent with spaces")
_UNCLOSED: Final = ("this quote is never closed", "close it, or remove it")

#: libyaml's words -> ours and a hint.
_WORDS: Final[dict[str, tuple[str, str]]] = {
    "mapping values are not allowed in this context": (
        "a ':' is not allowed here",
        f"quote a text that holds ': '; {_INDENT}",
    ),
    "did not find expected key": ("this does not fit the mapping it is in", f"{_INDENT}, and the quotes"),
    "did not find expected '-' indicator": ("this does not fit the list it is in", _INDENT),
    "could not find expected ':'": ("a ':' is missing after this", "write 'key: value'"),
    "found unexpected end of stream": _UNCLOSED,
    "found unexpected document indicator": _UNCLOSED,
    "did not find expected ',' or ']'": ("the list that begins with '[' is not closed", "write ']' or ','"),
    "did not find expected ',' or '}'": ("the mapping that begins with '{' is not closed", "write '}' or ','"),
    "did not find expected node content": ("a value is missing here", "is a bracket not closed?"),
    "found unknown escape character": (
        "this escape is not known",
        "in double quotes write \\\\ for a backslash, or use single quotes",
    ),
    "found invalid Unicode character escape code": (
        "this escape names no character",
        "write the character itself, in UTF-8",
    ),
    "found a tab character where an indentation space is expected": _TABS,
    "found a tab character that violates indentation": _TABS,
    "did not find expected <document start>": (
        "the document has ended before this",
        f"separate documents with '---'; {_INDENT}",
    ),
    "block sequence entries are not allowed in this context": ("a list cannot begin here", _INDENT),
}
_AT_CONTEXT: Final = ("while scanning a quoted scalar", "while scanning a simple key")


def explain(error: Exception, text: str, base: int) -> Problem:
    """Turn what libyaml raised for ``text[base:…]`` into a problem. `error` may be of any class."""
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    context: Any = getattr(error, "context_mark", None)
    if context is not None and getattr(error, "context", None) in (*_AT_CONTEXT, "while scanning an alias"):
        mark = context
    at = min(base + (mark.index if mark is not None else 0), len(text))
    if looks_like_cron(text, at):
        return quote_cron(text, at)
    words = str(getattr(error, "problem", None) or "")
    if words in _WORDS:
        message, hint = _WORDS[words]
        rule = rules.TAB if _WORDS[words] is _TABS else rules.SYNTAX
        return Problem(rule, message, at, at + 1, hint)
    return _by_character(error, words, text, at)


def _by_character(error: Exception, words: str, text: str, at: int) -> Problem:
    character = text[at : at + 1]
    line_start = text.rfind("\n", 0, at) + 1
    if character == "\t" and words == "found character that cannot start any token":
        return Problem(rules.TAB, _TABS[0], at, at + 1, _TABS[1])
    if character == "%" and at == line_start:
        return directive(at, text.find("\n", at))
    if character in ("@", "`", "%") and words == "found character that cannot start any token":
        message = f"a value cannot begin with '{character}'"
        return Problem(rules.SYNTAX, message, at, at + 1, "put the value in quotes")
    if character in ("*", "&"):
        message = f"a value cannot begin with '{character}'"
        return Problem(rules.SYNTAX, message, at, at + 1, "put the value in quotes")
    message = f"this is not YAML: {words}" if words else f"this cannot be read ({type(error).__name__})"
    return Problem(rules.SYNTAX, message, at, at + 1)


def looks_like_cron(text: str, at: int) -> bool:
    """Tell whether a cron expression without quotes begins at `at`."""
    if text[at : at + 1] not in ("*", "@"):
        return False
    line_start = text.rfind("\n", 0, at) + 1
    return _CRON_SHAPE.match(text, at) is not None or _CRON_KEY.search(text[line_start:at]) is not None


def quote_cron(text: str, at: int) -> Problem:
    """Say that the cron expression that begins at `at` needs quotes."""
    shape = _CRON_SHAPE.match(text, at)
    end = shape.end() if shape else _line_end(text, at)
    expression = text[at:end].strip()
    return Problem(
        rules.QUOTE_CRON,
        f"quote cron expressions: in YAML a value cannot begin with '{text[at]}'",
        at,
        end,
        f'write "{expression}"' if shape else 'write "…" around the expression',
    )


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def directive(at: int, end: int) -> Problem:
    """Say that directives are refused."""
    return Problem(rules.DIRECTIVE, "directives are not allowed", at, end if end >= 0 else at + 1, "remove the line")

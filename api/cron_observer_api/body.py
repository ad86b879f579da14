"""What a client sends, read strictly: one door for JSON bodies and one for query strings.

Refused with 4xx before a handler sees it: other media types and charsets, compressed bodies where none are
expected, too much, bytes that are no UTF-8, deep nesting, NaN and huge numbers, duplicate keys, NUL, lone
surrogates, unknown fields and wrong types.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from email.message import Message
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from msgspec import inspect

from cron_observer.errors import BadRequest, UnknownField
from cron_observer_api.problems import TooLarge, UnsupportedMedia

T = TypeVar("T")

#: Bytes of a body, where a call does not say otherwise: a result may have 64 KiB, its envelope comes on top.
BODY_LIMIT: Final = 68 * 1024

#: Bytes of a batch of log entries, after inflation.
LOGS_LIMIT: Final = 1024 * 1024

#: How deep JSON may nest.
MAX_DEPTH: Final = 32

#: Parameters of one query string.
MAX_PARAMETERS: Final = 40

#: A string (closed or not), or a bracket. Possessive, so that no input makes it look twice.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)

_WHERE: Final = re.compile(r"(.*?) - at `\$(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]*)\]")

_SMALLEST: Final = -(1 << 63)
_LARGEST: Final = (1 << 63) - 1


async def read_body(
    request: Request[Any, Any, Any],
    shape: type[T],
    limit: int = BODY_LIMIT,
    *,
    gzip: bool = False,
    optional: bool = False,
    media_types: tuple[str, ...] = ("application/json",),
) -> T:
    """Return the JSON body of a request as `shape`, a Struct that forbids unknown fields or any msgspec type.

    `limit` counts bytes as sent and, with `gzip`, again after inflation. With `optional` no body at all reads as
    ``{}``. Raises `BadRequest`, `UnknownField` (with `pointer`), `TooLarge` or `UnsupportedMedia`.
    """
    return decode(await read_bytes(request, limit, gzip=gzip, optional=optional, media_types=media_types), shape)


async def read_bytes(
    request: Request[Any, Any, Any],
    limit: int = BODY_LIMIT,
    *,
    gzip: bool = False,
    optional: bool = False,
    media_types: tuple[str, ...] = ("application/json",),
) -> bytes:
    """Return the body as inflated bytes, having checked its size and how it is labelled."""
    coding = field(request, b"content-encoding", "identity").strip().lower()
    if coding not in (("identity", "gzip") if gzip else ("identity",)):
        raise UnsupportedMedia(
            "the Content-Encoding is not read here", hint="send the body as it is" + (" or gzip" * gzip)
        )
    raw = await collect(request, limit)
    if not raw and optional:
        return b"{}"
    _check_media_type(field(request, b"content-type", ""), media_types)
    return _inflate(raw, limit) if coding == "gzip" else raw


def field(request: Request[Any, Any, Any], wanted: bytes, otherwise: str) -> str:
    """Return the first header field of a name, given in lower case, or `otherwise` where there is none."""
    for name, value in request.scope["headers"]:
        if name == wanted:
            return value.decode("latin-1")
    return otherwise


async def collect(request: Request[Any, Any, Any], limit: int) -> bytes:
    """Return the body as it was sent, however it is labelled. Raises `TooLarge`, or `BadRequest` if it ends early."""
    announced = field(request, b"content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise BadRequest("the client went away before its body was whole")
        chunks.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise _too_large(limit)
        if not message["more_body"]:
            return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body may have {limit} bytes", hint="send less at a time", limit_bytes=limit)


def _check_media_type(content_type: str, allowed: tuple[str, ...]) -> None:
    if content_type in allowed:
        return
    message = Message()
    message["content-type"] = content_type
    charset = message.get_param("charset", "utf-8")
    if message.get_content_type() not in allowed or not content_type:
        raise UnsupportedMedia("the body must be JSON", hint=f"send Content-Type: {allowed[0]}")
    if not isinstance(charset, str) or charset.lower() not in ("utf-8", "utf8"):
        raise UnsupportedMedia("the body must be UTF-8", hint="leave the charset away")


def _inflate(raw: bytes, limit: int) -> bytes:
    engine = zlib.decompressobj(wbits=31)
    try:
        data = engine.decompress(raw, limit + 1)
    except zlib.error as error:
        raise BadRequest("the body is not gzip", hint="compress it again, or send it as it is") from error
    if len(data) > limit:
        raise _too_large(limit)
    if not engine.eof or engine.unused_data:
        raise BadRequest("the gzip body is cut off or has something behind it", hint="send one whole member")
    return data


def decode(raw: bytes, shape: type[T]) -> T:
    """Return JSON `raw` as `shape`. Raises `BadRequest` or `UnknownField`, never with the client's values."""
    _check_depth(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not UTF-8", hint="send JSON as UTF-8") from error
    try:
        json.loads(text, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_word, parse_int=_bounded)
        value = msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        raise explain(error, shape) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if isinstance(error, _Refused):
            raise BadRequest(str(error), hint="mend the body and send it again") from error
        raise BadRequest("the body is not valid JSON", hint="mend the body and send it again") from error
    # Only an escape can bring a NUL: bare ones are no JSON.
    if b"\\u0000" in raw and any("\0" in word for word in _words(msgspec.json.decode(raw))):
        raise BadRequest("a text holds the character NUL", hint="leave it out: the database cannot store it")
    return value


class _Refused(ValueError):  # noqa: N818  told as `BadRequest` before it leaves this module
    """JSON that others would accept and we do not; the message says what."""


def _check_depth(raw: bytes) -> None:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRUCTURE.finditer(raw):
        mark = match[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest(f"the body nests deeper than {MAX_DEPTH} levels", hint="send it flatter")
        elif mark in (b"]", b"}"):
            depth -= 1


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Refused("an object has the same key twice")


def _refuse_word(word: str) -> None:
    raise _Refused(f"{word} is no JSON number")


def _bounded(digits: str) -> None:
    if len(digits) > 19 and not (len(digits) <= 20 and _SMALLEST <= int(digits) <= _LARGEST):
        raise _Refused("a whole number needs more than 64 bits")
    if len(digits) == 19 and int(digits) > _LARGEST:
        raise _Refused("a whole number needs more than 64 bits")


def _words(value: Any) -> Iterator[str]:
    """Yield every key and text inside `value`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)


def explain(error: msgspec.ValidationError, shape: Any = None) -> BadRequest:
    """Translate what msgspec says about a wrong value of a `shape` into a refusal with a JSON pointer."""
    message = str(error)
    where = _WHERE.fullmatch(message)
    said, path = (where[1], where[2]) if where else (message, "")
    steps = [match[1] or match[2] for match in _STEP.finditer(path)]
    pointer = "".join(_pointer_step(step) for step in steps)
    unknown, missing = _UNKNOWN.fullmatch(said), _MISSING.fullmatch(said)
    if unknown:
        name = unknown[1][:80]
        return UnknownField(
            f"the field {name!r} is not known here",
            hint="leave it out, or check its spelling",
            pointer=pointer + _pointer_step(name),
        )
    if missing:
        return BadRequest(f"the field {missing[1]!r} is missing", hint="send it", pointer=pointer)
    if said.startswith("Invalid enum value"):
        words = ", ".join(_words_at(shape, steps))
        said = f"expected one of {words}" if words else "the value is none of those that are known here"
    return BadRequest(said[:300], hint="mend the field that `pointer` names", pointer=pointer)


def _words_at(shape: Any, steps: Sequence[str]) -> list[str]:
    """Return the words that a shape takes at a path; none if it is not made of what our shapes are made of."""
    kinds = [inspect.type_info(shape)]
    for step in [*steps, None]:
        kinds = [inner for kind in kinds for inner in _inside(kind)]
        if step is not None:
            kinds = [inner for kind in kinds for inner in _members(kind, step)]
    return [str(word) for kind in kinds if isinstance(kind, inspect.LiteralType) for word in kind.values]


def _inside(kind: inspect.Type) -> Iterator[inspect.Type]:
    """Yield what a type is behind its constraints and alternatives."""
    if isinstance(kind, inspect.Metadata):
        yield from _inside(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _inside(one)
    else:
        yield kind


def _members(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.StructType):
        yield from (field.type for field in kind.fields if field.encode_name == step)
    elif isinstance(kind, inspect.ListType):
        yield kind.item_type
    elif isinstance(kind, inspect.DictType):
        yield kind.value_type


def _pointer_step(step: str) -> str:
    """Return one step of a JSON pointer; msgspec writes ``...`` for any member of an open object."""
    return "/" + step.replace("~", "~0").replace("/", "~1")


def read_query(request: Request[Any, Any, Any], shape: type[T]) -> T:
    """Return the query string as `shape`, a Struct whose fields are the parameters.

    Every parameter may come once. Raises `BadRequest` or `UnknownField`, never with the client's values.
    """
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(request.scope["query_string"]),
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise BadRequest("the query string cannot be read", hint="write name=value&name=value") from error
    given = dict(pairs)
    if len(given) != len(pairs):
        raise BadRequest("a parameter of the query string comes twice", hint="give several values with commas")
    if any("\0" in value for value in given.values()):
        raise BadRequest("a parameter holds the character NUL", hint="leave it out")
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        refusal = explain(error, shape)
        if isinstance(refusal, UnknownField):
            refusal.message = refusal.message.replace("the field", "the parameter", 1)
        raise refusal from error

"""Bodies and query strings are read strictly: what others let pass is refused with 400, never with a crash."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from typing import Annotated, Any, Literal

import pytest
from litestar import Request
from msgspec import Meta

from cron_observer.errors import BadRequest, UnknownField
from cron_observer_api import body, wire
from cron_observer_api.problems import TooLarge, UnsupportedMedia

NUL = "\\u0000"

#: JSON that `decode` must refuse, whatever shape is asked for.
REFUSED = {
    "nothing": b"",
    "cut off": b'{"a": ',
    "behind the end": b'{} {"a": 1}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": [Infinity, -Infinity]}',
    "a huge float": b'{"a": 1e999}',
    "65 bits": b'{"a": 9223372036854775808}',
    "65 bits below": b'{"a": -9223372036854775809}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a leading zero": b'{"a": 01}',
    "no UTF-8": b'{"a": "\xff"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a NUL": f'{{"a": "x{NUL}"}}'.encode(),
    "a NUL in a key": f'{{"a{NUL}": 1}}'.encode(),
    "a NUL far inside": f'{{"a": [{{"b": ["{NUL}"]}}]}}'.encode(),
    "a bare NUL": b'{"a": "\x00"}',
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice inside": b'{"a": [{"b": 1, "b": 2}]}',
    "a key twice by escape": b'{"a": 1, "\\u0061": 1}',
    "33 levels": b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}",
    "100,000 levels": b"[" * 100_000,
    "100,000 open objects": b'{"a":' * 100_000,
    "single quotes": b"{'a': 1}",
    "a comment": b'{"a": 1} // x',
    "a byte-order mark": b'\xef\xbb\xbf{"a": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "no JSON at all": b"<a/>",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """Each of these is a 400 whose text holds nothing of what came."""
    with pytest.raises(BadRequest) as told:
        body.decode(REFUSED[name], dict[str, Any])
    assert told.value.hint
    assert "9999" not in told.value.message


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 9223372036854775807, "b": -9223372036854775808, "c": 1e308}',
        b'{"a": ' + b"[" * 31 + b"]" * 31 + b"}",
        b'{"a": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{{{{{{"}',
        b'{"a": "\\\\u0000", "b": "\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}',
        b'{"a": {"x": 1}, "b": {"x": 1}}',
        '{"ü": "😀", "😀": "\\ud83d\\ude00"}'.encode(),
        b'{"__proto__": {"constructor": null}}',
    ],
)
def test_what_is_let_through(raw: bytes) -> None:
    """The limits bite nobody honest: they read as any other parser reads them."""
    assert body.decode(raw, dict[str, Any]) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [b'{"a": "' + b'\\"' * 34_000 + b'"}', b'"' + b'\\"' * 34_000, b'{"a":"' * 11_000, b"[" * 68_000, b'["' * 34_000],
)
def test_nothing_takes_long_to_refuse(raw: bytes) -> None:
    """Bodies made to keep a parser busy are read in milliseconds."""
    began = time.process_time()
    with contextlib.suppress(BadRequest):
        body.decode(raw, dict[str, Any])
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"reason": 7}', "/reason"),
        (b'{"grace_seconds": "1"}', "/grace_seconds"),
        (b'{"grace_seconds": -1}', "/grace_seconds"),
        (b"[]", ""),
    ],
)
def test_a_wrong_type_names_its_pointer(raw: bytes, pointer: str) -> None:
    """The refusal points to the field."""
    with pytest.raises(BadRequest) as told:
        body.decode(raw, wire.CancelBody)
    assert told.value.facts["pointer"] == pointer


class _Entry(wire.In):
    level: Annotated[Literal["INFO", "ERROR"], Meta(description="How bad it is.")] | None = None


class _Entries(wire.In):
    entries: Annotated[list[_Entry], Meta(max_length=10)]


def test_a_word_that_is_not_known_is_told_which_are() -> None:
    """The refusal names the words that are known at that place, however deep it is, and not the one that came."""
    with pytest.raises(BadRequest) as told:
        body.decode(b'{"entries": [{}, {"level": "TRACE"}]}', _Entries)
    assert told.value.message == "expected one of ERROR, INFO"
    assert told.value.facts["pointer"] == "/entries/1/level"


def test_a_missing_field_is_named() -> None:
    """What has to be there is named, at the object that lacks it."""
    with pytest.raises(BadRequest) as told:
        body.decode(b"{}", _Entries)
    assert "'entries' is missing" in told.value.message


def test_an_unknown_field_is_named() -> None:
    """An unknown field is a refusal of its own kind, with its pointer; escapes are those of JSON pointers."""
    with pytest.raises(UnknownField) as told:
        body.decode(b'{"is/adm~in": true}', wire.CancelBody)
    assert told.value.facts["pointer"] == "/is~1adm~0in"


class FakeRequest(Request[Any, Any, Any]):
    """A request with headers and a body in pieces."""


def request(raw: bytes, *, pieces: int = 1, ends: bool = True, **headers: str) -> Request[Any, Any, Any]:
    """Return a request with this body; `ends` False goes away before its end."""
    step = max(1, len(raw) // pieces)
    parts = [raw[at : at + step] for at in range(0, len(raw), step)] or [b""]
    messages: list[Any] = [
        {"type": "http.request", "body": part, "more_body": not ends or at < len(parts) - 1}
        for at, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        return messages.pop(0)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: Any = {"type": "http", "method": "POST", "path": "/", "headers": named, "query_string": b"", "state": {}}
    return FakeRequest(scope, receive)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "text/plain",
        "application/xml",
        "application/x-msgpack",
        "application/json; charset=latin-1",
        "application/json; charset=nope",
        "application/json, text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/problem+json",
    ],
)
async def test_only_json_in_utf8_is_read(label: str) -> None:
    """Another media type or charset is 415: no form of another site can send one without a preflight."""
    with pytest.raises(UnsupportedMedia):
        await body.read_bytes(request(b"{}", content_type=label))


@pytest.mark.parametrize(
    "label", ["application/json", "application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"']
)
async def test_the_usual_labels_are_read(label: str) -> None:
    """JSON in UTF-8 may say so."""
    assert await body.read_bytes(request(b"{}", content_type=label)) == b"{}"


async def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    """Announced or not, more than the limit is 413."""
    for sent in (request(b"x" * 101, content_type="application/json", content_length="101"), request(b"x" * 101)):
        with pytest.raises(TooLarge):
            await body.read_bytes(sent, 100)
    many = request(b"x" * 100_000, pieces=100, content_type="application/json")
    with pytest.raises(TooLarge):
        await body.read_bytes(many, 5000)


async def test_a_client_that_goes_away_is_no_error_of_ours() -> None:
    """A body that breaks off is a refusal, not a crash."""
    with pytest.raises(BadRequest):
        await body.read_bytes(request(b"{}", ends=False, content_type="application/json"))


async def test_gzip_is_read_only_where_it_is_expected() -> None:
    """Elsewhere a compressed body is 415; other codings always are."""
    packed = gzip.compress(b'{"a": 1}')
    sent = {"content_type": "application/json", "content_encoding": "gzip"}
    assert await body.read_bytes(request(packed, **sent), gzip=True) == b'{"a": 1}'
    with pytest.raises(UnsupportedMedia):
        await body.read_bytes(request(packed, **sent))
    for coding in ("br", "deflate", "gzip, gzip", "zstd"):
        with pytest.raises(UnsupportedMedia):
            await body.read_bytes(request(packed, **sent | {"content_encoding": coding}), gzip=True)


async def test_a_bomb_is_not_inflated() -> None:
    """A body that inflates beyond the limit is 413 in milliseconds, a broken one 400."""
    sent = {"content_type": "application/json", "content_encoding": "gzip"}
    bomb = gzip.compress(b"0" * 50_000_000)
    began = time.process_time()
    with pytest.raises(TooLarge):
        await body.read_bytes(request(bomb, **sent), body.LOGS_LIMIT, gzip=True)
    assert time.process_time() - began < 0.5
    whole = gzip.compress(b"{}")
    for broken in (b"{}", whole[:-1], whole + b"x", whole + whole, b""):
        with pytest.raises(BadRequest):
            await body.read_bytes(request(broken, **sent), gzip=True)


@pytest.mark.parametrize(
    "query",
    [
        b"limit=0",
        b"limit=201",
        b"limit=-1",
        b"limit=1_0",
        b"limit=" + "١".encode(),
        b"limit=%D9%A1",
        b"limit=" + b"9" * 5000,
        b"limit=1&limit=2",
        b"limit",
        b"cursor=%FF",
        b"cursor=%00",
        b"limits=1",
        b"limit=1;cursor=x",
        b"&".join(b"a%d=1" % number for number in range(100)),
    ],
)
def test_a_wrong_query_string_is_refused(query: bytes) -> None:
    """Unknown, repeated and malformed parameters are 400, and nothing of them is echoed."""
    asked = request(b"")
    asked.scope["query_string"] = query
    with pytest.raises(BadRequest) as told:
        body.read_query(asked, wire.PageQuery)
    assert "9999" not in told.value.message


def test_a_query_string_reads_as_its_parameters() -> None:
    """Escapes are undone once, an empty string is no parameter at all."""
    asked = request(b"")
    asked.scope["query_string"] = b"limit=7&cursor=a%252Fb+c"
    read = body.read_query(asked, wire.PageQuery)
    assert (read.limit, read.cursor) == (7, "a%2Fb c")
    asked.scope["query_string"] = b""
    assert body.read_query(asked, wire.PageQuery).limit == 50

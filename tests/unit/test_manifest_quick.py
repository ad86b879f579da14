"""Reading files quickly changes nothing: it is sure of what the careful way finds, and leaves it all else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cron_observer import manifest
from cron_observer.manifest import clean, files, loader, quick, scalars, schemas, semantics, validate
from cron_observer.manifest.document import NOTHING
from cron_observer.manifest.nodes import find
from cron_observer.model import Context, Definition
from support import manifests
from support.documents import ROOT, blocks, documents

_SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
_WORDS = sorted(schemas.KINDS.values())

#: What is put into valid texts to break them, or to make them mean something else.
_BITS = (
    *(
        "&a ",
        "*a",
        "!t ",
        "!!str ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "? ",
        "- ",
        "<<: ",
        "\t",
        "\r\n",
        "\r",
        "#",
        ":",
        ",",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "|\n",
        ">\n",
        "\\x41",
        '"\\u202e"',
        '"\\u0007"',
        "\u202e",
        "\u2028",
        "\ufeff",
        "\x07",
    ),
    *(
        "1.0",
        "1e400",
        ".inf",
        "0x10",
        "9223372036854775808",
        "1" * 80,
        "null",
        "~",
        "true",
        "ü",
        "\n",
        " ",
        "  ",
        "name: ",
    ),
    *(
        "AKIAABCDEFGHIJKLMNOP",
        "a://b:c@d",
        "password: x",
        "kind: Task\n",
        "metadata: {name: a}\n",
        "x: 1\n",
        "30s",
        "25h",
    ),
)


def agree(data: bytes, context: Context = NOTHING) -> None:
    """Hold the quick way of reading a file against the careful one."""
    careful = files.inspect("tasks/a.yaml", data, context=context).parsed
    quickly = quick.parse("tasks/a.yaml", data, context)
    if quickly is not None:
        assert quickly == careful
        assert not careful.findings
    assert files.parse("tasks/a.yaml", data, context=context) == careful
    _same_values(data)


def _same_values(data: bytes) -> None:
    read = clean.read(data)
    if read is None:
        return
    text, problem = loader.decode(data)
    stream = loader.load(text)
    assert problem is None
    assert not stream.problems
    assert len(read) == len(stream.documents)
    for one, document in zip(read, stream.documents, strict=True):
        assert document.readable
        assert not document.problems
        assert document.root is not None
        assert msgspec.json.encode(one.value) == msgspec.json.encode(document.root.value)
        name = find(document.root, "/metadata/name")
        if name is not None and name.children is None:
            assert one.line == stream.place(name.start)[0]


def _texts() -> Iterator[str]:
    """Yield the YAML of the documentation and the examples, and every text that a test holds."""
    for path in documents():
        yield from (block.text for block in blocks(path.read_text()) if block.language in ("yaml", "yml"))
    yield from (path.read_text() for path in sorted((ROOT / "manifests-example").rglob("*.y*ml")))
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and len(node.value) > 3:
                yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")


def test_the_texts_of_all_tests_and_pages_are_read_alike() -> None:
    """Whatever anybody has ever written down as an example means the same both ways, alone and as a task's spec."""
    texts = dict.fromkeys(_texts())
    several = 0
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        agree(data)
        if "\n" in text:
            agree(manifests.SMALLEST.encode() + data)
        several += quick.parse("a.yaml", data, NOTHING) is not None
    assert several > 30


def test_nearly_all_examples_are_read_quickly() -> None:
    """The quick way is the usual one: it reads every manifest of the examples that has nothing to be said about it."""
    paths = [path for path in sorted((ROOT / "manifests-example").rglob("*.y*ml")) if not path.name.startswith(".")]
    assert len(paths) > 10
    for path in paths:
        data = path.read_bytes()
        parsed = files.inspect("a.yaml", data).parsed
        ordinary = not parsed.findings and not any(one.kind in ("Defaults", "Project") for one in parsed.others)
        if ordinary and b"environments:" not in data:
            assert quick.parse("a.yaml", data, NOTHING) is not None, path


@_SETTINGS
@given(manifests.files())
def test_layouts_are_read_alike(drawn: tuple[list[dict[str, Any]], str]) -> None:
    """In whichever way a manifest is laid out."""
    agree(drawn[1].encode())


@_SETTINGS
@given(manifests.files(), st.data())
def test_broken_texts_are_read_alike(drawn: tuple[list[dict[str, Any]], str], data: st.DataObject) -> None:
    """Wherever something is put into it, or taken out of it."""
    text = drawn[1]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        out = data.draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        text = text[:at] + data.draw(st.sampled_from(_BITS)) + text[at + out :]
        agree(text.encode())


@_SETTINGS
@given(st.lists(st.sampled_from([*_BITS, "a: ", "b: 1\n", "- x\n"]), max_size=12))
def test_rubbish_is_read_alike(bits: list[str]) -> None:
    """Even where nothing is a manifest."""
    agree("".join(bits).encode())


@_SETTINGS
@given(manifests.specs, st.data())
def test_settings_are_judged_alike(spec: dict[str, Any], data: st.DataObject) -> None:
    """Whatever the settings of a task say together, with values that fit and values that do not."""
    for _ in range(3):
        spec = data.draw(manifests.altered(spec)) or {}
        spec = data.draw(st.sampled_from([spec, {"schedule": {"every": "1h"}} | spec]))
        value = {"apiVersion": "cron-observer/v1", "kind": "Task", "metadata": {"name": "a"}, "spec": spec}
        agree(msgspec.json.encode(value))


_LAYERS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "timeout": st.sampled_from(["10m", "8d"]),
            "priority": st.sampled_from([3, None]),
            "payload": st.sampled_from([{"a": 1}, {"token": "x"}]),
            "catchup": st.sampled_from([{"policy": "none"}, {"window": "2h"}]),
            "schedule": st.sampled_from([{"timezone": "Europe/Berlin"}, {"cron": "0 0 30 2 *"}, {"jitter": "2h"}]),
        },
    ),
    min_size=1,
    max_size=2,
)


@_SETTINGS
@given(manifests.files(), _LAYERS, st.booleans())
def test_tasks_under_layers_are_read_alike(
    drawn: tuple[list[dict[str, Any]], str], said: list[dict[str, Any]], ruled: bool
) -> None:
    """With Defaults and a Project above them."""
    layers = [
        Definition(kind="Defaults", name=f"d{number}", spec={"spec": one}, path=f"{'tasks/' * number}d.yaml", line=3)
        for number, one in enumerate(said)
    ]
    if ruled:
        spec = {
            "labels": {"required": ["team"]},
            "queues": {"allow": ["def*"]},
            "defaults": {"Task": {"timeout": "5m"}},
        }
        layers.append(Definition(kind="Project", name="p", spec=spec, path="project.yaml", line=3))
    agree(drawn[1].encode(), Context(layers=tuple(layers)))


def test_limits_are_the_same() -> None:
    """At the edge of every limit, and one beyond it."""
    head = manifests.SMALLEST
    for depth in range(scalars.MAX_DEPTH - 4, scalars.MAX_DEPTH + 2):
        agree(f"{head}  payload: {'[' * depth}{']' * depth}\n".encode())
        agree(f"{head}  payload: {'{a: ' * depth}1{'}' * depth}\n".encode())
    for length in (scalars.MAX_KEY_CHARACTERS, scalars.MAX_KEY_CHARACTERS + 1):
        agree(f"{head}  payload: {{{'k' * length}: 1}}\n".encode())
    for length in (15_000, 15_950, 17_000, scalars.MAX_TEXT_BYTES, scalars.MAX_TEXT_BYTES + 1):
        agree(f"{head}  payload: {'x' * length}\n".encode())
        agree(f"{head}  payload: {'日' * (length // 3)}\n".encode())
        agree(f'{head}  payload: "{chr(92)}P{"x" * length}"\n'.encode())
    for count in (7_000, scalars.MAX_NODES + 5):
        agree(f"{head}  payload: [{'a,' * count}]\n".encode())
    for count in (loader.MAX_DOCUMENTS, loader.MAX_DOCUMENTS + 1):
        agree("".join(f"---\n{head.replace('nightly-export', f'a{number}')}" for number in range(count)).encode())


# -- the accelerator of the schema ------------------------------------------------------------------------


def _patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        for inner in part.values():
            yield from _patterns(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _patterns(inner)


_PATTERNS = sorted({pattern for word in _WORDS for pattern in _patterns(schemas.published(word))})


@pytest.mark.parametrize("pattern", _PATTERNS)
def test_patterns_mean_the_same_in_both_dialects(pattern: str) -> None:
    """No pattern uses what Python and ECMAScript read differently, but for `$`, which is read strictly."""
    body = pattern.removeprefix("^").removesuffix("$")
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    assert not re.search(r"\\[dDwWsSbBpPAzZ]|\(\?|[^\\]\$|\.(?![^\[]*\])", body)


@pytest.mark.parametrize("pattern", _PATTERNS)
@_SETTINGS
@given(st.data())
def test_patterns_accept_the_same(pattern: str, data: st.DataObject) -> None:
    """Texts that fit, and texts that nearly fit, fit in both."""
    import jsonschema_rs

    text = data.draw(st.from_regex(pattern))
    at = data.draw(st.integers(0, len(text)))
    text = (
        text[:at] + data.draw(st.sampled_from(["", "\n", "\r", "é", "٣", "ﬀ", "K", " ", "\x00", "\u2028"])) + text[at:]
    )
    accepts = jsonschema_rs.Draft202012Validator({"pattern": pattern}).is_valid(text)
    assert accepts == (re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text) is not None)


_NUMBERS = st.sampled_from(
    [
        *(0, 1, 1.0, -0.0, 9, 9.0, 9.5, 10, True, False, 2**31, 2**53 + 1, 2**63 - 1, 2**64, 2**70, 1e300),
        *(float("nan"), float("inf"), "1", "1.0", None, [1], {"a": 1}),
    ]
)
_ODD = st.one_of(
    _NUMBERS, st.sampled_from(["a\n", "\ud800", "日" * 64, "😀" * 64, "😀" * 256, "x" * 257, "", "1h\n", "UTC"])
)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _places(inner, (*at, key))


_FULL: dict[str, Any] = {
    "task": {"name": "a", "spec": manifest.effective({"schedule": {"cron": ["* * * * *"], "every": "1h"}})},
    "calendar": {"name": "c", "spec": {"entries": [{"weekdays": ["sat"]}, {"date": "2026-01-01"}]}},
    "taskgroup": {"name": "g", "spec": {"maxParallel": 3, "windows": [{"from": "10:00", "to": "11:00"}]}},
    "defaults": {"name": "d", "spec": {"spec": {"timeout": "5m", "retries": {"max": 3}, "priority": None}}},
    "project": {"name": "p", "spec": {"limits": {"tasks": 5}, "queues": {"allow": ["a*"]}}},
}


@pytest.mark.parametrize("word", _WORDS)
@_SETTINGS
@given(st.data())
def test_what_the_accelerator_accepts_has_no_fault(word: str, data: st.DataObject) -> None:
    """Any value in any place is accepted by both or judged by the strict one, and the verdict never depends on it."""
    kind = next(kind for (_, kind), known in schemas.KINDS.items() if known == word)
    full = msgspec.json.decode(msgspec.json.encode(_FULL[word]))
    document = {
        "apiVersion": "cron-observer/v1",
        "kind": kind,
        "metadata": {"name": full["name"], "labels": {"team": "a"}},
        "spec": full["spec"],
    }
    if word != "task":
        del document["metadata"]["labels"]
    assert validate.explain(word, document) == []
    assert validate.accepts(word, document)
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from([at for at in _places(document) if at]))
        holder: Any = document
        for part in parents:
            holder = holder[part]
        holder[last] = data.draw(_ODD)
        assert validate.check(word, document) == validate.explain(word, document)


# -- secrets ----------------------------------------------------------------------------------------------


@_SETTINGS
@given(st.from_regex(scalars._SECRET_VALUE), st.text(max_size=5), st.text(max_size=5))
def test_no_secret_is_missed_by_its_marks(secret: str, before: str, after: str) -> None:
    """Every text that looks like a secret does so in the JSON of its document."""
    text = f"{before} {secret}{after}"
    assume(scalars.looks_secret(text) and not re.search("[\ud800-\udfff]", text))
    assert scalars.may_look_secret(msgspec.json.encode({"a": [text]}))


def _named() -> list[str]:
    """Return every word that the pattern of such keys knows, written out."""
    written = semantics._SECRET_KEY.pattern.removeprefix("(^|_)(").removesuffix(r")\Z")
    words = []
    for word in written.split("|"):
        optional = word.partition("?")[0][-1:] if "?" in word else ""
        words += [word.replace("?", ""), word.replace(f"{optional}?", "")]
    return sorted(set(words))


@pytest.mark.parametrize("name", _named())
def test_no_key_of_a_secret_is_missed(name: str) -> None:
    """Every key that names a secret does so in the JSON of its payload, in whichever case it is written."""
    camel = re.sub("_([a-z])", lambda at: at[1].upper(), name)
    for key in (name, name.upper(), name.replace("_", "-"), camel, f"db_{name}", f"db{camel[:1].upper()}{camel[1:]}"):
        assert semantics.names_secret(key)
        assert semantics.may_hold_secret(b"", msgspec.json.encode({key: "x"}))

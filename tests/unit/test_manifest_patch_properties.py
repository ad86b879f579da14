"""Any change of any layout of a manifest becomes a patch that means exactly this change."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cron_observer import manifest
from cron_observer.manifest import DELETE
from cron_observer.manifest.body import same
from cron_observer.model import Finding, ParsedFile, Severity
from support.manifests import altered, applied, changes, files

_SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def _requested(spec: dict[str, Any], wanted: list[tuple[str, Any]]) -> dict[str, Any]:
    """Apply changes to an effective spec in the plainest way."""
    result = copy.deepcopy(spec)
    for pointer, value in wanted:
        *parents, last = pointer.split("/")[1:]
        if parents[:1] == ["labels"]:
            continue
        holder = result
        for parent in parents:
            holder = holder.setdefault(parent, {})
        if value is DELETE:
            holder.pop(last, None)
        else:
            holder[last] = value
    return manifest.effective(result)


def _labels(labels: dict[str, str], wanted: list[tuple[str, Any]]) -> dict[str, str]:
    result = dict(labels)
    for pointer, value in wanted:
        if pointer.startswith("/labels/"):
            result.pop(pointer[8:], None)
            if value is not DELETE:
                result[pointer[8:]] = value
    return result


def errors(parsed: ParsedFile) -> list[Finding]:
    """Return the findings that keep something from being applied; the drawn settings may be pointless together."""
    return [one for one in parsed.findings if one.severity is Severity.ERROR]


@_SETTINGS
@given(files())
def test_layouts_are_read_as_they_were_meant(drawn: tuple[list[dict[str, Any]], str]) -> None:
    """The layouts of these tests mean what they were drawn from, so the tests below test something."""
    values, text = drawn
    parsed = manifest.parse("a.yaml", text.encode())

    assert not errors(parsed)
    for value, task in zip(values, parsed.tasks, strict=True):
        assert same(manifest.effective(value["spec"]), dict(task.spec))


@_SETTINGS
@given(files(), changes, st.data())
def test_a_patch_means_the_change(
    drawn: tuple[list[dict[str, Any]], str], wanted: list[tuple[str, Any]], data: st.DataObject
) -> None:
    """The patch applies strictly; then this task means what was asked for, and no other has changed."""
    values, text = drawn
    index = data.draw(st.integers(0, len(values) - 1))
    before = manifest.parse("a.yaml", text.encode())
    payload = values[index]["spec"].get("payload")
    if isinstance(payload, dict | list) and all(pointer != "/payload" for pointer, _ in wanted):
        wanted = [*wanted, ("/payload", data.draw(altered(payload)))]
    patch = manifest.patch(text, "a.yaml", index, changes=wanted)
    result = applied(text, patch)

    assert result is not None
    after = manifest.parse("a.yaml", result.encode())
    assert not errors(after)
    assert len(after.tasks) == len(before.tasks)
    for old, new in zip(before.tasks, after.tasks, strict=True):
        if old.document == index:
            assert same(_requested(dict(old.spec), wanted), dict(new.spec))
            assert _labels(dict(old.labels), wanted) == new.labels
        else:
            assert same(dict(old.spec), dict(new.spec))


@_SETTINGS
@given(files(), st.data())
def test_a_deletion_leaves_the_others(drawn: tuple[list[dict[str, Any]], str], data: st.DataObject) -> None:
    """The patch of a deletion takes away this document alone, and the file with the last one."""
    values, text = drawn
    index = data.draw(st.integers(0, len(values) - 1))
    before = manifest.parse("a.yaml", text.encode())
    result = applied(text, manifest.patch(text, "a.yaml", index, delete=True))

    if len(values) == 1:
        assert result is None
    else:
        assert result is not None
        after = manifest.parse("a.yaml", result.encode())
        rest = [task for task in before.tasks if task.document != index]
        assert not errors(after)
        assert [task.name for task in rest] == [task.name for task in after.tasks]
        assert all(same(dict(old.spec), dict(new.spec)) for old, new in zip(rest, after.tasks, strict=True))


@_SETTINGS
@given(files(), st.sampled_from(["5m", "7h"]))
def test_one_value_changes_one_line(drawn: tuple[list[dict[str, Any]], str], timeout: str) -> None:
    """A value that is there is changed in its line; every comment and every other line stays."""
    values, text = drawn
    assume("timeout" in values[0]["spec"])
    patch = manifest.patch(text, "a.yaml", 0, changes=[("/timeout", timeout)])
    body = patch.split("\n@@", 1)[1].split("\n")

    removed = [line for line in body if line.startswith("-")]
    added = [line for line in body if line.startswith("+")]
    assert (len(removed), len(added)) == (1, 1)
    old, line = values[0]["spec"]["timeout"], removed[0][1:]
    places = [at for at in range(len(line)) if line.startswith(old, at)]
    assert added[0][1:] in {line[:at] + timeout + line[at + len(old) :] for at in places}, "only the value differs"

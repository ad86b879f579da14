"""Validate a task that came through the API: the same rules, with pointers into the request's body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cron_observer.manifest import rules, values
from cron_observer.manifest.document import examine
from cron_observer.manifest.files import DOCS_URL, limited
from cron_observer.manifest.nodes import pointer
from cron_observer.manifest.scalars import concealed, shown
from cron_observer.manifest.schemas import effective
from cron_observer.manifest.values import Fault
from cron_observer.model import API_VERSION, Finding, Severity


def parse_spec(name: str, spec: dict[str, Any], labels: dict[str, str]) -> tuple[dict[str, Any], list[Finding]]:
    """Validate a task that the API owns; return its effective spec and the findings.

    The body of such a request is the manifest's ``spec`` with ``name`` and ``labels`` beside its fields,
    so pointers are ``/schedule/cron``, ``/labels/team``, ``/name``. `path` of the findings is empty and
    there are no lines. When a finding is an error, the spec is returned as it came.
    """
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }
    # A value beyond the limits is not looked at further: the walk of the other rules counts on them.
    faults = values.limits(document) or values.discreet([*examine(document), *_foreign(spec)])
    findings = limited("", [_finding(fault, name) for fault in faults])
    if any(one.severity is Severity.ERROR for one in findings):
        return spec, findings
    return effective(spec), findings


def _foreign(spec: Mapping[str, Any]) -> list[Fault]:
    """Return what only a manifest can have: a task of the API is what it is in every environment."""
    if "environments" not in spec:
        return []
    message = 'unknown field "environments"'
    hint = "only manifests have it: write what the task is to be"
    return [Fault(rules.UNKNOWN_FIELD, ("spec", "environments"), message, hint, on_key=True, within=("spec",))]


def _finding(fault: Fault, name: str) -> Finding:
    skip = 1 if fault.path[:1] in (("spec",), ("metadata",)) else 0
    return Finding(
        severity=fault.rule.severity,
        code=fault.rule.code,
        path="",
        pointer=concealed(pointer(fault.path[skip:])),
        kind="Task",
        name=shown(name, 128),
        message=fault.sentence(skip),
        hint=fault.hint,
        url=DOCS_URL + fault.rule.code.lower(),
    )


def changes(
    current: Mapping[str, Any], requested: Mapping[str, Any], at: tuple[str, ...] = ()
) -> list[tuple[str, Any, Any]]:
    """Return where two effective specs differ: (pointer, current value, requested value).

    A field that one of them does not have is `ABSENT` there. Mappings are compared field by field,
    but for the payload and lists, which are one value each.
    """
    found: list[tuple[str, Any, Any]] = []
    for name in [*current, *(name for name in requested if name not in current)]:
        old, new = current.get(name, ABSENT), requested.get(name, ABSENT)
        path = (*at, name)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and path != ("payload",):
            found += changes(old, new, path)
        elif not same(old, new):
            found.append((pointer(path), old, new))
    return found


class _Absent:
    """A field that is not there; as a requested value: remove it."""

    def __repr__(self) -> str:
        return "DELETE"

    def __bool__(self) -> bool:
        return False


ABSENT = _Absent()


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal; unlike ``==`` it tells 1 from 1.0 and from true."""
    waiting = [(one, other)]
    while waiting:
        left, right = waiting.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, dict):
            if left.keys() != right.keys():
                return False
            waiting.extend((left[key], right[key]) for key in left)
        elif isinstance(left, list):
            if len(left) != len(right):
                return False
            waiting.extend(zip(left, right, strict=True))
        elif left != right:
            return False
    return True

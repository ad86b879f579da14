"""Who owns a task: what a write asks for, whether it changes anything, and the refusal with its patch.

A manifest is changed in Git. The refusal says where it stands, which fields the request would have changed, and
carries the unified diff that makes the same change there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cron_observer.errors import BadRequest, InvalidSpec, ManifestOwned, UnknownField
from cron_observer.manifest import DELETE, changes, parse_spec, rules
from cron_observer.manifest import patch as patch_of
from cron_observer.model import Severity
from cron_observer.store.tasks import OwnerLocation, TaskRow

#: The code of a finding about a field that no task has.
_UNKNOWN: Final = rules.UNKNOWN_FIELD.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A valid task as a write asks for it. `spec` is effective; `body` is what came, with its name."""

    name: str
    spec: dict[str, Any]
    labels: dict[str, str]
    body: dict[str, Any]


class Refusal(Exception):  # noqa: N818  it is caught where it becomes `ManifestOwned`, outside of the transaction
    """A write to a task that a manifest owns. `wanted` is None for a deletion."""

    def __init__(self, row: TaskRow, place: OwnerLocation | None, wanted: Wanted | None) -> None:
        super().__init__(row.name)
        self.row = row
        self.place = place
        self.wanted = wanted


async def wanted_of(body: dict[str, Any], name: str | None) -> Wanted:
    """Validate a body; `name` is that of the path, if it has one.

    Raises `BadRequest`, `UnknownField` with the pointer of the field, or `InvalidSpec` with ``findings``.
    """
    given = body.get("name", name)
    if not isinstance(given, str):
        raise BadRequest("the task needs a name", hint="send `name`, a text", pointer="/name")
    if name is not None and given != name:
        raise BadRequest("the name in the body is not the one in the path", hint="leave it out", pointer="/name")
    spec = {key: value for key, value in body.items() if key not in ("name", "labels")}
    labels = body.get("labels", {})
    # Reading cron expressions and schemas takes its time: not in the loop that serves everybody.
    effective, findings = await asyncio.to_thread(parse_spec, given, spec, labels)
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors:
        listed = msgspec.to_builtins(errors)
        strange = next((one for one in errors if one.code == _UNKNOWN), None)
        if strange is not None:
            raise UnknownField(strange.message, hint=strange.hint, pointer=strange.pointer, findings=listed)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        hint = errors[0].hint or "mend the fields that the findings point to"
        raise InvalidSpec(f"{errors[0].message}{more}", hint=hint, findings=listed)
    return Wanted(name=given, spec=effective, labels=labels, body={**body, "name": given})


def current_body(row: TaskRow) -> dict[str, Any]:
    """Return a task as a body: the fields of its effective spec, with its name and labels."""
    return {"name": row.name, "labels": dict(row.labels), **row.spec}


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def _differences(row: TaskRow, wanted: Wanted) -> list[tuple[str, Any, Any]]:
    return changes({"labels": row.labels, **row.spec}, {"labels": wanted.labels, **wanted.spec})


def unchanged(row: TaskRow, wanted: Wanted) -> bool:
    """Say whether a write asks for what a living task is already."""
    return not row.removed and not _differences(row, wanted)


async def refuse(refusal: Refusal) -> ManifestOwned:
    """Return the error that tells the client what to do in Git instead."""
    row, place, wanted = refusal.row, refusal.place, refusal.wanted
    if place is None:
        raise LookupError(f"the owner of the task {row.name} is not to be found")
    found = [] if wanted is None else _differences(row, wanted)
    diff = await asyncio.to_thread(_patch, place, found, wanted)
    conflicts = [_conflict(*one) for one in found]
    if wanted is None:
        conflicts = [{"pointer": "", "current": current_body(row)}]
    where = f"{place.path}:{place.line}" if place.line else place.path
    branch = f" on {place.ref}" if place.ref else ""
    return ManifestOwned(
        f'the task "{row.name}" is owned by the source "{place.source}": change {where}{branch}',
        hint="apply `patch` in a clone with `git apply`, commit and push; trigger and cancel stay allowed",
        owner={
            "kind": "manifest",
            "source": place.source,
            "repository": place.repository,
            "ref": place.ref,
            "path": place.path,
            "line": place.line,
            "commit": place.commit,
            "url": place.url,
        },
        conflicts=conflicts,
        patch=diff,
    )


def _conflict(pointer: str, current: Any, requested: Any) -> dict[str, Any]:
    sides = {"current": current, "requested": requested}
    return {"pointer": pointer} | {side: value for side, value in sides.items() if value is not DELETE}


def _patch(place: OwnerLocation, found: list[tuple[str, Any, Any]], wanted: Wanted | None) -> str:
    if wanted is None:
        return patch_of(place.text or "", place.path, place.document, delete=True)
    asked = [(pointer, requested) for pointer, _, requested in found]
    text, body = place.text or "", wanted.body
    return patch_of(text, place.path, place.document, changes=asked, requested=body, context=place.context)

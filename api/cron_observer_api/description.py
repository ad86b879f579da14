"""The description of the API, OpenAPI 3.1, made from what the handlers declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.routes import HTTPRoute

from cron_observer import __doc__ as about
from cron_observer.manifest import schema
from cron_observer_api import wire
from cron_observer_api.operation import Operation, operation_of
from cron_observer_api.problems import MEDIA_TYPE, PROBLEMS

#: The version of the contract, not of the program: it changes with the wire.
VERSION: Final = "1.0.0"

#: What any call may answer beside what it declares.
_ANYWHERE: Final = ("bad_request", "bad_host", "headers_too_large", "internal", "uri_too_long")
_WITH_KEY: Final = ("unauthenticated", "forbidden", "rate_limited", "unavailable")
_WITH_BODY: Final = ("unknown_field", "too_large", "unsupported_media_type")

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{([a-z_]+)(?::[a-z]+)?\}")

_TAGS: Final = {
    "projects": "Groups of tasks.",
    "tasks": "What runs, when and by which rules. Those that a manifest owns are changed in Git.",
    "executions": "Every due slot and what became of it.",
    "sources": "Where manifests come from, and how far they have been applied.",
    "keys": "Credentials.",
    "worker": "What workers call: claim, report, complete.",
    "pings": "What jobs say that somebody else fires. Whoever knows the address may call.",
    "stream": "What changes, as it changes.",
    "health": "For probes and Prometheus.",
    "documents": "About the API itself.",
}


def describe(app: Litestar) -> dict[str, Any]:
    """Return the description of every call of `app` that declares itself."""
    calls = sorted(_calls(app), key=lambda call: (call[0], call[1]))
    shapes = _shapes(operation for _, _, _, operation in calls)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation_id, operation in calls:
        paths.setdefault(path, {})[method.lower()] = _call(path, operation_id, operation, shapes)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Cron Observer",
            "version": VERSION,
            "summary": (about or "").strip().splitlines()[0],
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": says} for name, says in _TAGS.items()],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "responses": _shared_responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "co_<8 id>_<43 secret>"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _calls(app: Litestar) -> Iterator[tuple[str, str, str, Operation]]:
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            operation = operation_of(handler)
            if operation is None:
                continue
            for method in sorted(handler.http_methods):
                yield _PARAMETER.sub(r"{\1}", route.path_format), str(method), str(handler.operation_id), operation


class _Shapes:
    """The schemas of all Structs that calls take and answer."""

    def __init__(self, types: list[Any]) -> None:
        found, components = msgspec.json.schema_components(types, ref_template=_REF)
        self._of = dict(zip(map(id, types), found, strict=True))
        self.components: dict[str, Any] = dict(components) | _task_bodies()

    def of(self, shape: Any) -> dict[str, Any]:
        """Return the schema of a type."""
        if shape in (wire.TaskBody, wire.TaskPatch):
            return {"$ref": _REF.format(name=shape.__name__)}
        found: dict[str, Any] = self._of[id(shape)]
        return found


def _shapes(operations: Iterable[Operation]) -> _Shapes:
    types: dict[int, Any] = {id(shape): shape for shape in (wire.Problem, *wire.PROBLEMS.values())}
    for operation in operations:
        for shape in (operation.body, operation.query, *operation.answers.values()):
            if shape is not None and not isinstance(shape, str):
                types[id(shape)] = shape
    for special in (wire.TaskBody, wire.TaskPatch):
        types.pop(id(special), None)
    return _Shapes(list(types.values()))


def _task_bodies() -> dict[str, Any]:
    """Return the bodies of task writes: the fields of the published schema's `spec`, with `name` and `labels`."""
    manifest = schema("task")["properties"]
    names, spec = manifest["metadata"]["properties"], manifest["spec"]
    fields = {name: field for name, field in spec["properties"].items() if name != "environments"}
    beside = {"name": names["name"], "labels": names["labels"]}
    return {
        "TaskBody": spec | {"title": "TaskBody", "properties": beside | fields, "examples": []},
        "TaskPatch": {
            "title": "TaskPatch",
            "description": "A JSON merge patch (RFC 7396): null removes a field.",
            "type": "object",
            "additionalProperties": False,
            "properties": {name: {} for name in [*beside, *fields]},
        },
    }


def _call(path: str, operation_id: str, operation: Operation, shapes: _Shapes) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    parameters += _query(operation, shapes)
    if operation.idempotent:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Repeats with the same key and body get the first answer, for 24 hours.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
            }
        )
    call: dict[str, Any] = {
        "operationId": operation_id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": _responses(path, operation, shapes),
    }
    if operation.description:
        call["description"] = operation.description
    if operation.body is not None:
        call["requestBody"] = {
            "required": not operation.body_optional,
            "content": {kind: {"schema": shapes.of(operation.body)} for kind in operation.media_types},
        }
    if not operation.scopes:
        call["security"] = []
    else:
        call["x-scopes"] = list(operation.scopes)
    return call


def _query(operation: Operation, shapes: _Shapes) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    name = shapes.of(operation.query)["$ref"].rsplit("/", 1)[-1]
    described = shapes.components[name]
    required = described.get("required", [])
    return [
        {"name": field, "in": "query", "required": field in required, "schema": _without_null(part)}
        for field, part in described["properties"].items()
    ]


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema: leaving it out is how a client says null."""
    kinds = [kind for kind in part.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        part = kinds[0] | {key: value for key, value in part.items() if key != "anyOf"}
    return {key: value for key, value in part.items() if (key, value) != ("default", None)}


def _responses(path: str, operation: Operation, shapes: _Shapes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, shape in operation.answers.items():
        told: dict[str, Any] = {"description": operation.summary if status < 400 else "Not ready"}
        if isinstance(shape, str):
            told["content"] = {shape: {}}
        elif shape is not None:
            told["content"] = {"application/json": {"schema": shapes.of(shape)}}
        found[str(status)] = told
    by_status: dict[int, list[str]] = {}
    for code in sorted(_problems(path, operation)):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, codes in by_status.items():
        if operation.plain:
            # what was refused before it came to the call is a problem all the same
            found[str(status)] = _told(codes) | {"content": _told(codes)["content"] | {"text/plain": {}}}
        elif str(status) not in found:
            shared = f"Problem{status}"
            is_shared = codes == _shared_codes(status)
            found[str(status)] = {"$ref": f"#/components/responses/{shared}"} if is_shared else _told(codes)
    return dict(sorted(found.items()))


def _shared_codes(status: int) -> list[str]:
    """Return the codes of a status that any call with a key may answer."""
    return sorted(code for code in (*_ANYWHERE, *_WITH_KEY, "not_found") if PROBLEMS[code].status == status)


def _told(codes: list[str]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes),
        "content": {MEDIA_TYPE: {"schema": _problem_schema(codes)}},
    }


def _problem_schema(codes: list[str]) -> dict[str, Any]:
    """Return the schema of a problem with one of `codes`: some have members of their own."""
    plain = {"$ref": _REF.format(name="Problem")}
    special = [{"$ref": _REF.format(name=wire.PROBLEMS[code].__name__)} for code in codes if code in wire.PROBLEMS]
    if not special:
        return plain
    return {"anyOf": [*special, plain]} if len(special) < len(codes) or len(special) > 1 else special[0]


def _shared_responses() -> dict[str, Any]:
    statuses = sorted({PROBLEMS[code].status for code in (*_ANYWHERE, *_WITH_KEY, "not_found")})
    return {f"Problem{status}": _told(_shared_codes(status)) for status in statuses}


def _problems(path: str, operation: Operation) -> set[str]:
    codes = {*_ANYWHERE, *operation.problems}
    if operation.scopes:
        codes |= set(_WITH_KEY)
    if operation.query is not None:
        codes.add("unknown_field")
    if operation.body is not None:
        codes |= set(_WITH_BODY)
    if operation.idempotent:
        codes |= {"in_progress", "idempotency_mismatch"}
    if "{" in path:
        codes.add("not_found")
    return codes


def rendered(app: Litestar) -> bytes:
    """Return the description as JSON text, the same for the same calls."""
    return msgspec.json.format(msgspec.json.encode(describe(app), order="deterministic"), indent=2) + b"\n"

"""Hold a document against its JSON Schema, and say in our own words what is wrong.

The library's own messages are never used: they print the whole value, and half of them help nobody.
One schema is compiled for each (apiVersion, kind), with an empty registry: no reference is ever fetched.
What nothing is wrong with is mostly told by an accelerator; it accepts, and never refuses or words anything.
The libraries are imported at the first use, so that commands that only print start fast.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from cron_observer.manifest import rules, schemas
from cron_observer.manifest.scalars import looks_secret, shown
from cron_observer.manifest.values import Fault, Path, dotted, walk

_DURATION: Final = "^[0-9]{1,12}(ms|s|m|h|d)$"
_NAME: Final = "^[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?$"
_TYPES: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


@cache
def _compiled(word: str) -> Any:
    import jsonschema
    from referencing import Registry

    def pattern(validator: Any, wanted: str, instance: Any, _schema: Any) -> Iterator[Any]:
        # In Python `$` also matches before a last line feed; in a schema it does not.
        exact = wanted[:-1] + r"\Z" if wanted.endswith("$") else wanted
        if validator.is_type(instance, "string") and not re.search(exact, instance):
            yield jsonschema.ValidationError("pattern")

    base = jsonschema.Draft202012Validator
    types = base.TYPE_CHECKER.redefine(
        "integer", lambda _checker, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Any = jsonschema.validators.extend
    strict = extend(base, {"pattern": pattern}, type_checker=types)
    published = schemas.published(word)
    strict.check_schema(published)
    return strict(published, registry=Registry())


@cache
def _accelerator(word: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(dict(schemas.published(word)), validate_formats=False, offline=True)


def accepts(word: str, document: Any) -> bool:
    """Tell whether a document surely keeps to the schema of its kind; False says nothing, ask `check`.

    The document must hold no number such as 1.0, which the accelerator takes for a whole number and we do not.
    """
    try:
        return bool(_accelerator(word).is_valid(document))
    except Exception:  # noqa: BLE001 - values that are no JSON; the one that writes the messages judges them
        return False


def check(word: str, document: Any) -> list[Fault]:
    """Return everything that the schema of a kind finds wrong with a document, in the order of its fields."""
    if accepts(word, document) and not any(type(value) is float and value.is_integer() for _, value in walk(document)):
        return []
    return explain(word, document)


def explain(word: str, document: Any) -> list[Fault]:
    """Do what `check` does without asking the accelerator."""
    faults: dict[tuple[str, Path, bool], Fault] = {}
    for error in _compiled(word).iter_errors(document):
        say = _SAY.get(error.validator, _other)
        if "propertyNames" in error.absolute_schema_path:
            say = _key
        for fault in say(word, tuple(error.absolute_path), error):
            faults.setdefault((fault.rule.code, fault.path, fault.on_key), fault)
    found = list(faults.values())
    guessed = {(fault.within, fault.hint) for fault in found if fault.rule is rules.UNKNOWN_FIELD}
    return [
        fault
        for fault in found
        if fault.rule is not rules.MISSING_FIELD or (fault.within, _did_you_mean(str(fault.path[-1]))) not in guessed
    ]


def suggest(word: str, known: list[str]) -> str | None:
    """Return the known word that was probably meant."""
    near = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    return next((name for name in known if near and name.lower() == near[0]), None)


def _did_you_mean(name: str) -> str:
    return f'did you mean "{name}"?'


def type_of(value: Any) -> str:
    """Name the type of a parsed value, and the value itself where it is short."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the {'whole ' if isinstance(value, int) else ''}number {value}"
    if isinstance(value, str):
        if looks_secret(value):
            return "a text"
        return f'the text "{shown(value, 40)}"' if value else "an empty text"
    return "a list" if isinstance(value, list) else "a mapping"


def _type(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    expected = " or ".join(_TYPES[name] for name in wanted)
    hint = None
    if error.schema.get("pattern") == _DURATION:
        expected = "a duration such as 90s, 15m or 1h"
        if isinstance(error.instance, int) and not isinstance(error.instance, bool):
            hint = f"write {error.instance}s if seconds are meant"
    elif "string" in wanted and isinstance(error.instance, bool | int | float):
        hint = "put it in quotes"
    elif "integer" in wanted and isinstance(error.instance, str):
        hint = "remove the quotes"
    elif "array" not in wanted and isinstance(error.instance, list):
        hint = "give one value, not a list"
    yield Fault(rules.WRONG_TYPE, path, f"expected {expected}, got {type_of(error.instance)}", hint)


def _unknown(word: str, path: Path, error: Any) -> Iterator[Fault]:
    known = list(error.schema.get("properties", {}))
    for name in error.instance:
        if name in known:
            continue
        near = suggest(name, [other for other in known if other not in error.instance] or known)
        elsewhere = [place for place in _places(word).get(name, []) if place != path]
        hint = f"known here: {', '.join(known)}" if known else "nothing may be set here"
        if near is not None:
            hint = _did_you_mean(near)
        elif elsewhere:
            hint = f'"{name}" belongs under {dotted(elsewhere[0])}'
        elif "cron" in error.instance and re.search(r"[*\d]", name):
            hint = "inside {…} a comma ends a value: quote the cron expression"
        message = f'unknown field "{shown(name)}"'
        yield Fault(rules.UNKNOWN_FIELD, (*path, name), message, hint, on_key=True, within=path)


@cache
def _places(word: str) -> dict[str, list[Path]]:
    """Map every field's name to the paths of the mappings that know it."""
    places: dict[str, list[Path]] = {}
    waiting: list[tuple[Path, Any]] = [((), schemas.published(word))]
    while waiting:
        path, part = waiting.pop(0)
        for name, field in part.get("properties", {}).items():
            if path:
                places.setdefault(name, []).append(path)
            waiting.append(((*path, name), field))
    return places


def _missing(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    for name in error.validator_value:
        if name not in error.instance:
            example = (error.schema["properties"][name].get("examples") or [None])[0]
            hint = f"for example {name}: {example}" if isinstance(example, str) else None
            message = f'the field "{name}" is missing'
            yield Fault(rules.MISSING_FIELD, (*path, name), message, hint, within=path)


def _allowed(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    values = error.validator_value if error.validator == "enum" else [error.validator_value]
    known = [value for value in values if value is not None]
    near = suggest(error.instance, known) if isinstance(error.instance, str) else None
    hint = _did_you_mean(near) if near else None
    yield Fault(rules.NOT_ALLOWED, path, f"expected one of {', '.join(known)}; got {type_of(error.instance)}", hint)


def _pattern(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    got = type_of(error.instance)
    if error.validator_value == _DURATION:
        hint = "digits and one of ms, s, m, h, d, without a space: 90s, 15m, 1h"
        yield Fault(rules.BAD_DURATION, path, f"expected a duration, got {got}", hint)
    elif error.validator_value == _NAME:
        hint = "lower case letters, digits, '-' and '.', at most 128, beginning and ending with a letter or digit"
        better = re.sub(r"[^a-z0-9.]+", "-", error.instance.lower()).strip("-.")[:128]
        hint = f'{hint}: for example "{better}"' if better else hint
        yield Fault(rules.BAD_NAME, path, f"{got} is not a name", hint)
    else:
        described = str(error.schema.get("description", "")) or None
        yield Fault(rules.MALFORMED, path, f"{got} does not have the required form", described)


def _key(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    if path[-1:] == ("environments",):
        hint = "a-z, 0-9 and '-', at most 63, beginning and ending with a letter or digit, as in the source's setting"
        message = f'"{shown(error.instance)}" is no name of an environment'
        yield Fault(rules.BAD_NAME, (*path, error.instance), message, hint, on_key=True, within=path)
        return
    hint = "letters, digits, '-', '_' and '.', at most 63, with an optional DNS name and '/' before them"
    message = f'the key "{shown(error.instance)}" is not allowed'
    yield Fault(rules.BAD_LABEL_KEY, (*path, error.instance), message, hint, on_key=True, within=path)


def _range(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    low, high = error.schema.get("minimum"), error.schema.get("maximum")
    yield Fault(rules.OUT_OF_RANGE, path, f"expected {low} to {high}, got {error.instance}")


_SIZES: Final[dict[str, str]] = {
    "maxLength": "at most {} characters are allowed",
    "maxItems": "at most {} items are allowed",
    "minItems": "at least {} item is needed",
    "maxProperties": "at most {} entries are allowed",
}


def _size(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    yield Fault(rules.WRONG_SIZE, path, _SIZES[error.validator].format(error.validator_value))


def _union(word: str, path: Path, _error: Any) -> Iterator[Fault]:
    if word == "task":
        message = "at least one of cron, every and at is needed"
        yield Fault(rules.NO_SCHEDULE, path, message, 'for example cron: "30 2 * * *"')
    else:
        message = "at least one of entries and base is needed"
        yield Fault(
            rules.MISSING_FIELD,
            (*path, "entries"),
            message,
            "for example entries: [{weekdays: [sat, sun]}]",
            within=path,
        )


def _one_of(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    """An entry of a calendar, or who runs a task; what its other rules say already is not said again."""
    if not isinstance(error.instance, dict):
        return
    if path[-1:] == ("run",):
        yield from _one_run(path, error)
        return
    known = error.schema["properties"]
    named = [name for name in error.instance if name in known]
    if len(set(named) - {"to"}) != 1 and named != ["to"] and (named or not error.instance):
        said = " and ".join(named) if named else "nothing"
        message = (
            f"an entry says exactly one of date, from and to, yearly, weekdays, holidays and ics; this says {said}"
        )
        yield Fault(rules.NOT_ONE_ENTRY, path, message, "write one entry for each")


def _one_run(path: Path, error: Any) -> Iterator[Fault]:
    known = list(error.schema["properties"])
    named = [name for name in error.instance if name in known]
    if len(named) != 1 and (named or not error.instance):
        said = " and ".join(named) if named else "nothing"
        message = f"run says exactly one of {', '.join(known)}; this says {said}"
        yield Fault(rules.NOT_ONE_RUN, path, message, "write one of them, or leave run out for external")


def _dependent(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    for name, others in error.validator_value.items():
        missing = [other for other in others if name in error.instance and other not in error.instance]
        if missing:
            message = f"has an effect only together with {' and '.join(missing)}"
            yield Fault(rules.NEEDS_FIELD, (*path, name), message, f"remove it, or add {missing[0]}", on_key=True)


def _other(_word: str, path: Path, error: Any) -> Iterator[Fault]:
    yield Fault(rules.NOT_ALLOWED, path, f"this breaks the rule {error.validator!r} of the schema")


_Say = Callable[[str, Path, Any], Iterator[Fault]]

_SAY: Final[dict[str, _Say]] = {
    "type": _type,
    "additionalProperties": _unknown,
    "required": _missing,
    "enum": _allowed,
    "const": _allowed,
    "pattern": _pattern,
    "minimum": _range,
    "maximum": _range,
    "anyOf": _union,
    "oneOf": _one_of,
    "dependentRequired": _dependent,
    **dict.fromkeys(_SIZES, _size),
}

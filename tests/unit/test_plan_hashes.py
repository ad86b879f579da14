"""The hash of what a task is: the quick way of writing it and the plain one agree in every byte."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cron_observer.manifest.schemas import effective
from cron_observer.plan import spec_hash
from cron_observer.plan.actions import LATER_FIELDS, canonical

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
@example([1e16, -0.0, 1e-7, 5e300, 10**30, -(10**19)])
@example({"é": "\x7f\u2028\U0001f600", "e": '"\\/\b\f\n\r\t\x01', "z\uffff": "", "z\U00010000": ""})
@example(["a:1.5", ",2e3", 3])
@example(1e16)
def test_hashes_are_of_the_plain_form(value: Any) -> None:
    """Whatever a manifest holds is written like ``json.dumps`` with sorted keys: hashes that are stored stay valid."""
    try:
        plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert canonical(value) == plain


def test_a_field_that_came_later_says_nothing_at_its_default() -> None:
    """A spec that was stored before there was a field has the hash of one that leaves the field at its default."""
    written = {"schedule": {"every": "1h"}}
    whole = effective(written)
    assert {name: whole[name] for name in LATER_FIELDS} == LATER_FIELDS
    before = {name: value for name, value in whole.items() if name not in LATER_FIELDS}
    assert spec_hash(before, {}, {}) == spec_hash(whole, {}, {})
    for prune in ("confirm", "disabled"):
        other = effective(written | {"lifecycle": {"prune": prune}})
        assert spec_hash(other, {}, {}) != spec_hash(whole, {}, {})

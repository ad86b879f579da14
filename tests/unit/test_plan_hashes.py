"""The hash of what a task is: the quick way of writing it and the plain one agree in every byte."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cron_observer.plan.actions import canonical

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

"""Lists that are written as PostgreSQL reads arrays."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from cron_observer.store import arrays


def test_ids_are_digits() -> None:
    """An id is written in full, leading zeros and all."""
    assert arrays.uuids([UUID(int=1), UUID(int=255)]) == "{" + f"{1:032x},{255:032x}" + "}"


def test_an_instant_that_is_there_twice_is_written_twice() -> None:
    """Equal objects, the same object and none at all each keep their place."""
    at = datetime(2026, 3, 29, 1, 0, 0, 5, tzinfo=UTC)
    told = "2026-03-29T01:00:00.000005+00:00"
    assert arrays.times([at, None, at, at.replace()]) == f"{{{told},NULL,{told},{told}}}"


def test_numbers_and_nothing_at_all() -> None:
    """What is missing is NULL, and an empty list is an empty array."""
    assert arrays.numbers([1, None, 0.5]) == "{1,NULL,0.5}"
    assert arrays.numbers([]) == "{}"


def test_texts_stay_what_they_are() -> None:
    """Whatever would end a text or an array is quoted; NULL as a word is a word."""
    assert arrays.texts(['a"b', "c\\d", "e,f}", "", "NULL", None]) == '{"a\\"b","c\\\\d","e,f}","","NULL",NULL}'


def test_texts_are_quoted_the_same_with_and_without_a_null_among_them() -> None:
    """Lists without NULL are quoted as a whole, and every text is what it is when it is quoted by itself."""
    several = ['a"b', "c\\d", '","', "", "NULL", "\n"]
    assert arrays.texts(several) == arrays.texts([*several, None]).replace(",NULL}", "}")
    assert arrays.texts([""]) == '{""}'
    assert arrays.texts([]) == "{}"


def test_a_text_with_a_nul_does_not_become_two() -> None:
    """The database refuses such a text; it is not taken for the end of one."""
    assert arrays.texts(["a\0b", "c"]) == '{"a\0b","c"}'

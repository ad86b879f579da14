"""The search box of the task list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cron_observer.store.views_tasks import TaskFilter
from cron_observer_api.pages.search import read


def test_words_and_tokens() -> None:
    """Tokens narrow by what they name; everything else is a word of name, path or description."""
    chosen, strange = read('invoice status:failed label:team=data label:tier owner:API source:main "two words"')
    assert strange == []
    assert chosen == TaskFilter(
        words=["invoice", "two words"],
        runs=["FAILED"],
        labels={"team": "data"},
        label_keys=["tier"],
        owner="api",
        source="main",
    )


def test_status_is_standing_or_last_run() -> None:
    """`status:` takes both kinds of word, and several widen the choice."""
    chosen, _ = read("status:suspended status:removed status:late")
    assert chosen.statuses == ["DISABLED", "REMOVED"]
    assert chosen.runs == ["LATE"]


def test_what_is_not_understood_is_said() -> None:
    """An unknown value chooses nothing and is told."""
    chosen, strange = read("status:blue owner: sync:maybe")
    assert chosen == TaskFilter(words=[], label_keys=[])
    assert strange == ["status:blue is not known", "owner: needs a value", "sync:maybe is not known"]


def test_a_colon_of_another_kind_is_a_word() -> None:
    """Only known names make tokens."""
    assert read("https://example.com")[0].words == ["https://example.com"]


@given(st.text(max_size=200))
def test_anything_can_be_typed(text: str) -> None:
    """No input raises, and none carries a NUL to the database."""
    chosen, _ = read(text)
    assert not any("\0" in word for word in chosen.words)

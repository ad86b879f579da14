"""Git's listings and logs, taken apart: odd names, modes, merges, and whatever else a stranger may commit."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.errors import SourceError
from cron_observer.source import Entry, history, trees
from cron_observer.source.spec import UNNAMABLE
from cron_observer.source.trees import Chooser, changes, compare, differing, listing

ALL = Chooser((), ())
BLOB, OTHER, ZERO = "a" * 40, "b" * 40, "0" * 40


def listed(*records: bytes) -> bytes:
    """Write records as ``ls-tree -z`` does."""
    return b"".join(record + b"\0" for record in records)


def test_a_listing_gives_what_counts() -> None:
    """Manifests with their modes and blobs; everything else is invisible."""
    raw = listed(
        f"100644 blob {BLOB}\ta.yaml".encode(),
        f"100755 blob {BLOB}\tdeep/b.yml".encode(),
        f"120000 blob {BLOB}\tlink.yaml".encode(),
        f"160000 commit {BLOB}\tvendor".encode(),
        f"100644 blob {BLOB}\tREADME.md".encode(),
        f"100644 blob {BLOB}\t.hidden/c.yaml".encode(),
        f"100644 blob {BLOB}\twith tab\t.yaml".encode(),
        f"100644 blob {BLOB}\t".encode() + b"caf\xe9.yaml",
        f"100644 blob {BLOB}\tnew\nline.yaml".encode(),
        f"100644 blob {BLOB}\tright\u202eto-left.yaml".encode(),
        f"100644 blob {BLOB}\t日本.yaml".encode(),
    )
    assert listing(raw, ALL) == [
        Entry("a.yaml", "100644", BLOB),
        Entry("deep/b.yml", "100755", BLOB),
        Entry("link.yaml", "120000", BLOB),
        Entry("with tab\\u0009.yaml", UNNAMABLE, BLOB),
        Entry("caf\\xe9.yaml", UNNAMABLE, BLOB),
        Entry("new\\u000aline.yaml", UNNAMABLE, BLOB),
        Entry("right\\u202eto-left.yaml", UNNAMABLE, BLOB),
        Entry("日本.yaml", "100644", BLOB),
    ]


def test_links_where_manifests_are_looked_for_count() -> None:
    """A link or submodule in the place of a folder that is to be read is not passed over."""
    raw = listed(f"120000 blob {BLOB}\ttasks".encode(), f"160000 commit {BLOB}\tvendor".encode())
    assert listing(raw, ALL) == []
    assert [entry.path for entry in listing(raw, Chooser(("tasks/billing",), ()))] == ["tasks"]
    assert [entry.path for entry in listing(raw, Chooser(("vendor/",), ()))] == ["vendor"]


def test_sources_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """More files or manifests than we read is an error of the source that says what to do."""
    raw = listed(*(f"100644 blob {BLOB}\t{number}.yaml".encode() for number in range(10)))
    for name in ("MOST_ENTRIES", "MOST_MANIFESTS"):
        with monkeypatch.context() as patch:
            patch.setattr(trees, name, 9)
            with pytest.raises(SourceError) as refused:
                listing(raw, ALL)
            assert refused.value.reason == "TooLarge"
    assert len(listing(raw, ALL)) == 10


def test_a_difference_tells_added_modified_and_deleted_apart() -> None:
    """Changes of mode count; what moves in or out of sight is added or deleted."""

    def change(old: str, new: str, path: str) -> bytes:
        blobs = (ZERO if old == "000000" else BLOB, ZERO if new == "000000" else OTHER)
        return f":{old} {new} {blobs[0]} {blobs[1]} X\0{path}".encode()

    raw = listed(
        change("000000", "100644", "added.yaml"),
        change("100644", "100755", "mode.yaml"),
        change("100644", "120000", "linked.yaml"),
        change("100644", "000000", "gone.yaml"),
        change("000000", "100644", "words.md"),
        change("100644", "000000", "words.txt"),
        change("100644", "120000", "tasks"),
    )
    found = changes(differing(raw), Chooser(("added.yaml", "mode.yaml", "linked.yaml", "gone.yaml", "tasks/x"), ()))
    assert [(entry.path, entry.mode) for entry in found.added] == [("added.yaml", "100644"), ("tasks", "120000")]
    assert [(entry.path, entry.mode) for entry in found.modified] == [
        ("mode.yaml", "100755"),
        ("linked.yaml", "120000"),
    ]
    assert found.deleted == ["gone.yaml"]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12")),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12")),
)
def test_comparing_is_exact(now: dict[str, str], known: dict[str, str]) -> None:
    """Every path is in exactly the list it belongs to."""
    changes = compare([Entry(path, "100644", blob) for path, blob in now.items()], known)
    assert {entry.path for entry in changes.added} == now.keys() - known.keys()
    assert {entry.path for entry in changes.modified} == {p for p in now.keys() & known.keys() if now[p] != known[p]}
    assert set(changes.deleted) == known.keys() - now.keys()


def told(*records: bytes) -> io.BufferedReader:
    """Give records as ``git log -z`` does."""
    return io.BufferedReader(io.BytesIO(listed(*records)))


def header(commit: str, author: str = "Ada", seconds: str = "1700000000", subject: str = "words") -> bytes:
    """Write the header of a commit."""
    return f"\x1e{commit}\x1f{author}\x1f{seconds}\x1f{subject}".encode()


def test_the_first_commit_with_the_content_is_taken() -> None:
    """A later commit that gave the path other content is passed over; so are paths that nobody asked for."""
    stream = told(
        header("c3"),
        f"\n:100644 100644 {BLOB} {OTHER} M".encode(),
        b"a.yaml",
        header("c2"),
        f"\n::100644 100644 100644 {OTHER} {ZERO} {BLOB} MM".encode(),
        b"a.yaml",
        f":000000 100644 {ZERO} {BLOB} A".encode(),
        b"b.yaml",
        header("c1"),
        f"\n:000000 100644 {ZERO} {BLOB} A".encode(),
        b"a.yaml",
    )
    found = history.last_touching(stream, {"a.yaml": BLOB, "missing.yaml": BLOB})
    assert {path: commit.id for path, commit in found.items()} == {"a.yaml": "c2"}


def test_names_cannot_pass_for_headers() -> None:
    """A path that looks like a header or a line of the log is a path."""
    evil = "\x1eevil\x1fMallory\x1f0\x1fforged"
    stream = told(
        header("c1"),
        f"\n:000000 100644 {ZERO} {BLOB} A".encode(),
        evil.encode(),
        f":000000 100644 {ZERO} {BLOB} A".encode(),
        b":000000 100644 x y A",
        f":000000 100644 {ZERO} {BLOB} A".encode(),
        b"a.yaml",
    )
    found = history.last_touching(stream, {"a.yaml": BLOB})
    assert [(commit.id, commit.author) for commit in found.values()] == [("c1", "Ada")]


def test_people_write_what_they_like() -> None:
    """Names, times and subjects of commits are bounded and cleaned before anybody sees them."""
    commit = history.commit("c1", "M\u202ealice\x07\x1b[31m" + "x" * 500, 99999999999999999999, "s" * 1000)
    assert commit.author is not None
    assert commit.subject is not None
    assert commit.author.startswith("M alice [31mxxx")
    assert (len(commit.author), len(commit.subject), commit.at) == (200, 500, None)
    commit = history.commit("c1", "", None, "\n\n")
    assert (commit.author, commit.subject, commit.at) == (None, None, None)
    assert history.commit("c1", None, 5, "\n a \nb\n\nc").subject == "a b"


@given(st.binary(max_size=300))
def test_no_listing_can_hurt(raw: bytes) -> None:
    """Whatever bytes a log holds, reading them ends without an error."""
    history.last_touching(io.BufferedReader(io.BytesIO(raw)), {"a.yaml": BLOB})

"""Forges: where their APIs are, what their answers mean, which pushes concern a source, where secrets are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.errors import SettingsError
from cron_observer.forge import Push, concerns, place_of, verify
from cron_observer.forge.statuses import message, verdict
from cron_observer.secret import LONGEST, read_secret

COMMIT = "3f9c2ab0d1e2f3a4b5c6d7e8f90123456789abcd"
TOKEN = "the-token-0123"


@pytest.mark.parametrize(
    ("provider", "url", "forge_url", "address"),
    [
        ("github", "https://github.com/acme/tasks.git", None, "https://api.github.com/repos/acme/tasks"),
        ("github", "git@github.com:acme/tasks.git", None, "https://api.github.com/repos/acme/tasks"),
        ("github", "https://ghe.example.org/acme/tasks", None, "https://ghe.example.org/api/v3/repos/acme/tasks"),
        ("gitlab", "https://gitlab.com/a/b/tasks.git", None, "https://gitlab.com/api/v4/projects/a%2Fb%2Ftasks"),
        ("gitlab", "ssh://git@host:2222/a/tasks", None, "https://host/api/v4/projects/a%2Ftasks"),
        ("gitlab", "https://host/gl/a/t.git", "https://host/gl", "https://host/gl/api/v4/projects/a%2Ft"),
        ("gitlab", "https://host/gl/a/t.git", "https://host/gl/api/v4", "https://host/gl/api/v4/projects/a%2Ft"),
        ("gitea", "https://host:3000/acme/tasks.git", None, "https://host:3000/api/v1/repos/acme/tasks"),
        ("gitea", "http://host/gitea/acme/tasks.git", None, "http://host/gitea/api/v1/repos/acme/tasks"),
        ("forgejo", "https://codeberg.org/acme/ta%20sks", None, "https://codeberg.org/api/v1/repos/acme/ta%2520sks"),
        ("forgejo", "git@[2001:db8::1]:acme/t.git", None, "https://[2001:db8::1]/api/v1/repos/acme/t"),
        ("gitea", "http://host/a/t", "https://other/api/v1/", "https://other/api/v1/repos/a/t"),
    ],
)
def test_the_address_follows_from_that_of_the_repository(
    provider: str, url: str, forge_url: str | None, address: str
) -> None:
    """The API of each forge is found by its kind, wherever it is mounted; forge_url wins."""
    place = place_of(provider, url, forge_url)
    assert place is not None
    assert place.statuses(COMMIT) == f"{address}/statuses/{COMMIT}"


@pytest.mark.parametrize("url", ["/srv/tasks.git", "file:///srv/a/tasks.git", "https://host/tasks.git", "../a/tasks"])
@pytest.mark.parametrize("forge_url", [None, "https://git.example.org"])
def test_an_address_without_owner_and_name_has_no_place(url: str, forge_url: str | None) -> None:
    """A path on this machine, or a repository without an owner, is on no forge that we could tell of it."""
    assert place_of("gitea", url, forge_url) is None


@pytest.mark.parametrize(
    ("status", "headers", "text", "error", "again", "wait"),
    [
        (201, {}, "{}", None, False, None),
        (200, {}, "", None, False, None),
        (400, {}, '{"message": "Cannot transition status via :run from :running"}', None, False, None),
        (400, {}, '{"message": {"ref": ["is wrong"]}}', 'HTTP 400: {"ref":["is wrong"]}', False, None),
        (401, {}, "", "HTTP 401", True, None),
        (404, {}, '["x"]', "HTTP 404", True, None),
        (422, {}, '{"error": "too many"}', "HTTP 422: too many", False, None),
        (403, {"retry-after": "60"}, "", "HTTP 403", True, 60.0),
        (429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", "HTTP 429", True, None),
        (429, {"retry-after": "9" * 40}, "", "HTTP 429", True, 3600.0),
        (500, {"retry-after": "60"}, "<html>", "HTTP 500", True, None),
        (500, {}, "x" * 195 + TOKEN, "HTTP 500: " + "x" * 195 + "***", True, None),
        (502, {}, f"gate {TOKEN}\x1b[31m\nway", "HTTP 502: gate *** [31m way", True, None),
    ],
)
def test_answers_have_a_meaning(
    status: int, headers: dict[str, str], text: str, error: str | None, again: bool, wait: float | None
) -> None:
    """Known, to be tried again and when, or refused for good; in words on one line, without the token."""
    judged = verdict(status, headers, text, TOKEN)
    assert (judged.error, judged.again, judged.wait) == (error, again, wait)


def test_a_redirect_says_what_to_do() -> None:
    """The operator is told to set the address that answers."""
    judged = verdict(307, {"location": "https://evil.example.org"}, "", TOKEN)
    assert judged.again
    assert "forge_url" in str(judged.error)


@given(st.integers(300, 599), st.text(), st.text(min_size=1).filter(str.strip))
def test_no_answer_breaks_the_judge(status: int, text: str, token: str) -> None:
    """Whatever a forge writes, the error is one short line."""
    judged = verdict(status, {"retry-after": text}, text, token)
    assert judged.error is None or ("\n" not in judged.error and len(judged.error) < 4000)


def test_without_an_address_of_ours_there_is_no_link() -> None:
    """target_url is left out where nobody knows how people reach the pages."""
    place = place_of("github", "https://github.com/a/t", None)
    assert place is not None
    words = {"commit": COMMIT, "state": "success", "context": "c", "description": "d"}
    assert "target_url" not in message(place, TOKEN, **words, target=None).body
    assert message(place, TOKEN, **words, target="https://x").body["target_url"] == "https://x"


@pytest.mark.parametrize(
    ("repository", "url", "wakes"),
    [
        ("acme/tasks", "https://github.com/acme/tasks.git", True),
        ("Acme/Tasks", "https://github.com/acme/tasks.git", True),
        ("acme/tasks", "https://host/mount/acme/tasks", True),
        ("mount/acme/tasks", "https://host/mount/acme/tasks", True),
        ("cme/tasks", "https://github.com/acme/tasks.git", False),
        ("tasks", "https://github.com/acme/tasks.git", False),
        ("/tasks", "https://github.com/acme/tasks.git", False),
        ("", "https://github.com/acme/tasks.git", False),
        ("acme/tasks", "/srv/tasks.git", True),
        ("acme/tasks", "http://127.0.0.1:3000/tasks.git", True),
    ],
)
def test_the_repository_of_a_push_is_that_of_the_source(repository: str, url: str, wakes: bool) -> None:
    """Owner and name end the path of the address; where it names no owner, the signature is all there is."""
    assert concerns(Push(repository, "refs/heads/main", COMMIT), url, "refs/heads/main") is wakes


@given(st.binary(), st.binary(), st.text(min_size=1))
def test_only_the_right_signature_is_one(raw: bytes, given_: bytes, secret: str) -> None:
    """No bytes in a header field break the check, and none but the HMAC pass it."""
    for provider, field in (("github", b"X-Hub-Signature-256"), ("forgejo", b"x-forgejo-signature")):
        assert not verify(provider, [(field, given_)], raw, [secret])
        assert not verify(provider, [], raw, [secret])
        assert not verify(provider, [(field, given_)], raw, [])


def test_secrets_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a variable or a file, without the blanks around; what is empty, missing or too long is an error."""
    file = tmp_path / "secret"
    file.write_text("  s3cret\n")
    monkeypatch.setenv("A_SECRET", "s3cret\n")
    assert read_secret(f"file:{file}") == read_secret("env:A_SECRET") == "s3cret"
    for content in (b"", b" \n", b"\xff\xfe", b"x" * (LONGEST + 1)):
        file.write_bytes(content)
        with pytest.raises(SettingsError) as told:
            read_secret(f"file:{file}")
        assert "xxx" not in told.value.message
    monkeypatch.delenv("A_SECRET")
    for ref in ("env:A_SECRET", f"file:{tmp_path}", f"file:{tmp_path}/nothing"):
        with pytest.raises(SettingsError):
            read_secret(ref)

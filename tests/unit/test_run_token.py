"""Run tokens: what they say, and that nobody can change it."""

from __future__ import annotations

import base64
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer import run_token
from cron_observer.run_token import is_genuine, mint, read_token

KEY = bytes(range(32))
TENANT, EXECUTION = UUID(int=7), UUID("01890000-0000-8000-8000-000000000001")

#: Made once: a token that was given out must stay good.
KNOWN = "crt_AAAAAAAAAAAAAAAAAAAABwGJAAAAAIAAgAAAAAAAAAEAAAAAAAAAA82GYZ3m55-7F5TqCB7CsYpi4z204uZZKJ3ASxgJ5Qyp"


@given(st.binary(min_size=32, max_size=32), st.uuids(), st.uuids(), st.integers(0, (1 << 63) - 1))
def test_a_token_says_what_was_put_in(key: bytes, tenant: UUID, execution: UUID, fence: int) -> None:
    """It names tenant, execution and fence, is genuine under its key, and needs no escape anywhere."""
    token = mint(key, tenant, execution, fence)
    claimed = read_token(token)
    assert claimed is not None
    assert (claimed.tenant_id, claimed.execution_id, claimed.fence) == (tenant, execution, fence)
    assert is_genuine(claimed, key)
    assert len(token) == 100
    assert token.isascii()
    assert "=" not in token


def test_the_form_stays() -> None:
    """A token that was given out by an older process is the same as one of today."""
    assert mint(KEY, TENANT, EXECUTION, 3) == KNOWN


@given(st.integers(0, 95), st.sampled_from("ABCDwxyz0189_-"))
def test_no_letter_can_be_changed(place: int, letter: str) -> None:
    """Whichever letter is another one, the token is not genuine any more."""
    token = mint(KEY, TENANT, EXECUTION, 3)
    place += len(run_token.PREFIX)
    changed = token[:place] + letter + token[place + 1 :]
    claimed = read_token(changed)
    assert claimed is not None
    assert is_genuine(claimed, KEY) is (changed == token)


def test_another_key_signs_something_else() -> None:
    """A token of one tenant's key is worth nothing under another's."""
    claimed = read_token(mint(KEY, TENANT, EXECUTION, 3))
    assert claimed is not None
    assert not is_genuine(claimed, bytes(32))


def test_the_bytes_of_a_token() -> None:
    """Seventy-two bytes: tenant, execution, fence, and a MAC of thirty-two."""
    raw = base64.urlsafe_b64decode(mint(KEY, TENANT, EXECUTION, 3).removeprefix("crt_"))
    assert raw[:16] == TENANT.bytes
    assert raw[16:32] == EXECUTION.bytes
    assert raw[32:40] == bytes([0, 0, 0, 0, 0, 0, 0, 3])
    assert len(raw) == 72


GOOD = mint(KEY, TENANT, EXECUTION, 3)


@pytest.mark.parametrize(
    "text",
    [
        "", "crt_", "co_abcdefgh_x", GOOD[:-1], GOOD + "A", GOOD + "\n", " " + GOOD, GOOD.replace("crt_", "CRT_"),
        "crt_" + "=" * 96, "crt_" + "é" * 96,
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    """Anything of another form is no token, and no error."""
    assert read_token(text) is None


def test_tokens_of_two_claims_differ() -> None:
    """Every claim has its own."""
    assert len({mint(KEY, TENANT, uuid4(), fence) for fence in range(10)}) == 10

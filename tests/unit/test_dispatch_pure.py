"""How webhooks wait, share places, and are signed."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.dispatch.answer import Answered, judge, shown
from cron_observer.dispatch.lanes import Lanes
from cron_observer.dispatch.request import Destination
from cron_observer.dispatch.signature import keys_of, sign
from cron_observer.errors import SettingsError
from cron_observer.lifecycle import retry_wait
from cron_observer.model import Backoff, Policy
from support.receivers import signature
from support.rows import spec

SECOND = timedelta(seconds=1)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
WEBHOOK = Policy.read(
    spec(run={"http": {"url": "https://a.example/"}}, retries={"max": 9, "initial": "10s", "cap": "100s"})
)


def test_waits_of_webhooks_are_spread_over_all_that_are_no_longer() -> None:
    """The exponential wait is drawn from nothing up to its bound, evenly, and the same whoever asks."""
    for attempt, bound in ((1, 10), (2, 20), (4, 80), (5, 100), (90, 100)):
        waits = [retry_wait(WEBHOOK, attempt, uuid4()).total_seconds() for _ in range(2_000)]
        assert 0 <= min(waits) < bound * 0.02
        assert bound * 0.98 < max(waits) <= bound
        assert abs(sum(waits) / len(waits) - bound / 2) < bound * 0.05
    identity = uuid4()
    assert retry_wait(WEBHOOK, 3, identity) == retry_wait(WEBHOOK, 3, identity) != retry_wait(WEBHOOK, 4, identity)


def test_constant_waits_and_those_of_workers_are_what_they_say() -> None:
    """Nothing is drawn where no destination has to be spared."""
    assert retry_wait(replace(WEBHOOK, backoff=Backoff.CONSTANT), 3, uuid4()) == 10 * SECOND
    assert retry_wait(Policy.read(spec()), 2, uuid4()) == 20 * SECOND


TENANTS = [UUID(int=number) for number in (1, 2)]
places = st.builds(
    Destination, st.sampled_from(TENANTS), st.sampled_from([f"h{number}" for number in range(9)]), st.just(443)
)


@given(st.integers(1, 24), st.integers(1, 8), st.lists(st.tuples(st.booleans(), places), max_size=120))
def test_places_are_shared(total: int, each: int, moves: list[tuple[bool, Destination]]) -> None:
    """No bound is ever passed, and a destination with nothing under way is let in while its tenant has a place."""
    lanes, held = Lanes(total, each), Counter[Destination]()
    for enters, where in moves:
        mine = sum(count for one, count in held.items() if one.tenant_id == where.tenant_id)
        room = held.total() < total and mine < total - total // 8
        if enters:
            entered = lanes.enter(where)
            held[where] += entered
            assert entered == room if not held[where] - entered else not entered or room
        elif held[where]:
            lanes.leave(where)
            held[where] -= 1
        assert lanes.free == total - held.total() >= 0
        assert max(held.values(), default=0) <= each
        assert sum(count - 1 for count in held.values() if count) <= total // 2


def test_signatures_are_those_of_the_specification() -> None:
    """A signature of each key, over id, timestamp and body, as computed from the words of the specification."""
    old, new = (f"whsec_{base64.b64encode(bytes([number]) * 24).decode()}" for number in (1, 2))
    made = sign(keys_of(f"{new}\n{old}\n", "x"), "id", 1_700_000_000, b'{"a": 1}')

    assert made.split() == [signature(one, "id", "1700000000", b'{"a": 1}') for one in (new, old)]
    # the example of the specification's libraries
    assert (
        sign(
            keys_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "x"),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("secret", ["", "plain", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!", "whsec_" + "A" * 120, "  "])
def test_what_cannot_sign_is_refused(secret: str) -> None:
    """A signing secret is whsec_ and the base64 of 24 to 64 bytes; what it is instead is not repeated."""
    with pytest.raises(SettingsError) as caught:
        keys_of(secret, "jobs-signing")
    assert "jobs-signing" in caught.value.message
    assert not secret.strip() or secret not in f"{caught.value.message} {caught.value.hint}" or secret == "whsec_"


@given(st.binary(max_size=300), st.sampled_from(["application/json", "text/plain", ""]), st.integers(100, 599))
def test_any_answer_is_judged(body: bytes, kind: str, status: int) -> None:
    """Whatever comes, it has an outcome, and what is kept of it fits into a row."""
    answered = Answered(status=status, headers=[("Content-Type", kind), ("Retry-After", kind)], body=body)
    judged = judge(answered, ["secret"], NOW)

    assert (judged.outcome == "finished") == (200 <= status < 300 and status != 202)
    assert "\x00" not in f"{judged.result!r}{judged.error!r}{shown(answered, ['secret'])!r}".replace("\\x00", "\x00")


@pytest.mark.parametrize(
    "form",
    [
        'a/b+c&"d<==',
        r"a\/b+c&\"d<==",
        "a%2Fb%2Bc%26%22d%3C%3D%3D",
        "a%2fb%2bc%26%22d%3c==",
        r"a/b\u002bc\u0026\u0022d\u003C\u003d=",
        "a/b+c&amp;&quot;d&lt;==",
        "a&#x2F;b&#43;c&#038;&#34;d&lt;==",
    ],
)
@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_secrets_are_blotted_out_however_they_are_written(form: str, kind: str) -> None:
    """A destination that repeats a secret plainly, or as JSON, a URL or HTML has it, leaves none of it."""
    secret = 'a/b+c&"d<=='
    headers = [("Content-Type", kind), ("Location", f"/x?{form}")]
    for status in (200, 500):
        answered = Answered(status=status, headers=headers, body=f'{{"got": "{form}"}}'.encode())
        kept = f"{shown(answered, [secret])}{judge(answered, [secret], NOW)}"

        assert form not in kept
        assert secret not in kept
        assert "***" in kept

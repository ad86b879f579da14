"""Every call of the client ends before its deadline and may be repeated without harm."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

import cron_observer_sdk as co
from cron_observer_sdk.transport import Abort
from support.processes import free_port
from support.sdk_server import TOKEN, Fault, WireServer, serving


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers."""
    with serving() as state:
        yield state


@pytest.fixture
def client(server: WireServer) -> Iterator[co.Client]:
    """A client of that server."""
    with co.Client(server.url, TOKEN, timeout=5) as made:
        yield made


def test_the_whole_worker_table_as_the_wire_has_it(server: WireServer, client: co.Client) -> None:
    """Each method sends what wire and server agree on, and nothing that is not known."""
    due = server.add_due("billing/export")
    (execution,) = client.claim("w1", ["default", "slow"], ["billing/export"], 3, lease_seconds=20)
    key, fence = execution["id"], execution["fence"]
    assert (key, fence) == (due["id"], 1)
    client.start(key, fence)
    assert client.heartbeat(key, fence, progress=0.5, message="half", lease_seconds=20, checkpoint={"row": 5})[
        "lease_until"
    ]
    assert client.logs(key, fence, 0, [{"level": "INFO", "message": "hello"}])["next_seq"] == 1
    client.complete(
        key, fence, "failed", exit_code=3, error={"type": "E", "message": "m", "traceback": ""}, retryable=False
    )
    client.release(key, fence, "stopping")
    made = client.create("billing/export", "w1", scheduled_for="2026-01-01T00:00:00.000Z", lease_seconds=20)
    assert client.get(made["id"])["id"] == made["id"]
    assert client.pending(7, "billing/export") == []
    client.patch(made["id"], "FAILED", error_message="disk full", worker="w1")
    assert client.trigger("billing/export", {"day": 1})["trigger"] == "manual"
    bodies = {call.verb: call.body for call in server.calls}
    assert bodies["claims"] == {
        "worker": "w1", "queues": ["default", "slow"], "tasks": ["billing/export"], "max": 3,
        "wait_seconds": 0, "lease_seconds": 20, "claim_id": bodies["claims"]["claim_id"],
    }  # fmt: skip
    assert bodies["start"] == {"fence": 1}
    assert bodies["heartbeat"] == {
        "fence": 1, "progress": 0.5, "message": "half", "lease_seconds": 20, "checkpoint": {"row": 5},
    }  # fmt: skip
    assert bodies["logs"] == {"fence": 1, "first_seq": 0, "entries": [{"level": "INFO", "message": "hello"}]}
    assert bodies["complete"] == {
        "fence": 1, "outcome": "failed", "exit_code": 3, "retryable": False,
        "error": {"type": "E", "message": "m", "traceback": ""},
    }  # fmt: skip
    assert bodies["release"] == {"fence": 1, "reason": "stopping"}
    assert bodies["create"] == {
        "id": made["id"], "task": "billing/export", "worker": "w1", "lease_seconds": 20,
        "scheduled_for": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    assert bodies["patch"] == {"status": "FAILED", "error_message": "disk full", "worker": "w1"}
    assert bodies["trigger"] == {"payload": {"day": 1}}
    assert server.of("pending")[0].path == "/api/v1/sdk/executions/pending?limit=7&task=billing%2Fexport"
    assert server.connections == 2  # PATCH, which is not repeated, has a fresh one


def test_a_claim_whose_reply_was_lost_claims_nothing_twice(server: WireServer, client: co.Client) -> None:
    """The repeat carries the same claim_id and gets the same executions."""
    server.add_due()
    server.add_due()
    server.fail("claims", Fault(drop=True))
    (execution,) = client.claim("w")
    assert len({call.body["claim_id"] for call in server.of("claims")}) == 1
    assert len(server.of("claims")) == 2
    assert execution["fence"] == 1
    assert len(server.due) == 1


@pytest.mark.parametrize("cut", [1, 10, -12, -17, -30, -35, -45, -46, -47, -50, -52, -54])
def test_half_a_reply_is_none(server: WireServer, client: co.Client, cut: int) -> None:
    """A reply that was cut, in its body or before, is asked for again: it is neither empty nor a stranger's."""
    server.add_due()
    server.fail("claims", Fault(cut=cut))
    (execution,) = client.claim("w")
    assert execution["fence"] == 1
    assert len(server.of("claims")) == 2


def test_half_a_refusal_is_none(server: WireServer, client: co.Client) -> None:
    """A refusal that was cut is asked for again: it says nothing yet of what was refused."""
    lost = {"status": 409, "problem": {"code": "lease_lost", "detail": "gone"}}
    server.fail("heartbeat", Fault(cut=5, **lost), Fault(**lost))
    with pytest.raises(co.LeaseLost, match="gone"):
        client.heartbeat("01900000-0000-7000-8000-000000000000", 1)
    assert len(server.of("heartbeat")) == 2


def test_a_creation_whose_reply_was_lost_creates_once(server: WireServer, client: co.Client) -> None:
    """The repeat carries the id that the client minted."""
    server.fail("create", Fault(drop=True), Fault(drop=True))
    made = client.create("a/b", "w")
    assert list(server.executions) == [made["id"]]
    assert len(server.of("create")) == 3


def test_what_cannot_be_repeated_is_not(server: WireServer, client: co.Client) -> None:
    """PATCH is sent once: after a lost reply nobody knows whether it worked, and a repeat would lie."""
    key = client.create("a/b", "w")["id"]
    server.fail("patch", Fault(drop=True))
    with pytest.raises(co.Unavailable):
        client.patch(key, "RUNNING")
    assert len(server.of("patch")) == 1
    server.fail("patch", Fault(status=503))
    assert client.patch(key, "FINISHED")["status"] == "FINISHED"


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_passing_trouble_is_waited_out(server: WireServer, client: co.Client, status: int) -> None:
    """Gateway errors and shed load are tried again."""
    server.fail("pending", Fault(status=status), Fault(status=status))
    assert client.pending() == []
    assert len(server.of("pending")) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
def test_refusals_are_not_repeated(server: WireServer, client: co.Client, status: int) -> None:
    """What the server refuses it would refuse again."""
    server.fail("pending", Fault(status=status, problem={"detail": "no"}))
    with pytest.raises(co.ApiError, match="no"):
        client.pending()
    assert len(server.of("pending")) == 1


def test_the_server_says_how_long_to_wait(server: WireServer, client: co.Client) -> None:
    """Retry-After is kept; one beyond the deadline ends the call at once."""
    server.fail("pending", Fault(status=429, headers={"Retry-After": "1"}))
    client.pending()
    first, second = server.of("pending")
    assert second.at - first.at >= 1
    server.fail("pending", Fault(status=429, problem={"code": "rate_limited"}, headers={"Retry-After": "3600"}))
    begun = time.monotonic()
    with co.Client(server.url, TOKEN, timeout=60) as patient, pytest.raises(co.RateLimited) as refused:
        patient.pending()
    assert time.monotonic() - begun < 30
    assert refused.value.retry_after == 3600


def test_tries_are_bounded(server: WireServer, client: co.Client) -> None:
    """A server that stays ill is asked five times and no more."""
    server.always["pending"] = Fault(status=503, problem={"code": "unavailable", "detail": "restarting"})
    with pytest.raises(co.Unavailable, match="restarting"):
        client.pending()
    assert len(server.of("pending")) == 5


@pytest.mark.parametrize("fault", [Fault(hang=30), Fault(drip=0.05)], ids=["silence", "drip"])
def test_no_call_outlives_its_deadline(server: WireServer, fault: Fault) -> None:
    """Neither a silent server nor one that drips bytes holds a call longer than its deadline."""
    server.always["pending"] = fault
    begun = time.monotonic()
    with co.Client(server.url, TOKEN, timeout=0.7) as hasty, pytest.raises(co.Unavailable):
        hasty.pending()
    assert 0.5 < time.monotonic() - begun < 10


def test_a_host_that_swallows_packets_holds_no_call() -> None:
    """A connection that never comes up ends at the deadline."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        begun = time.monotonic()
        with pytest.raises(co.Unavailable):
            co.Client(f"http://127.0.0.1:{port}", TOKEN, timeout=0.7).pending()
        assert time.monotonic() - begun < 30
        for one in held:
            one.close()


def test_nobody_listening_is_said_with_the_address_and_without_the_token() -> None:
    """The message names host and port."""
    port = free_port()
    with pytest.raises(co.Unavailable) as refused:
        co.Client(f"http://127.0.0.1:{port}", TOKEN, tries=1).pending()
    assert str(refused.value) == f"cannot reach Cron Observer at 127.0.0.1:{port}: Connection refused"


def test_another_server_is_recognised(server: WireServer, client: co.Client) -> None:
    """A page instead of JSON is not taken for an answer."""
    server.fail("pending", Fault(raw=b"<html>hello</html>"))
    with pytest.raises(co.ApiError, match="not from Cron Observer"):
        client.pending()


def test_redirects_are_not_followed(server: WireServer, client: co.Client) -> None:
    """The token goes to the address that was set, and to no other."""
    server.fail("pending", Fault(status=307, headers={"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(co.ApiError, match="set CRON_OBSERVER_URL to its final address"):
        client.pending()


def test_a_connection_is_used_again_and_replaced_when_the_server_closed_it(
    server: WireServer, client: co.Client
) -> None:
    """Calls in a row share a connection; one that died in between costs no try."""
    single = co.Client(server.url, TOKEN, tries=1)
    for _ in range(3):
        single.pending()
    assert server.connections == 1
    server.fail("pending", Fault(drop=True))
    single.pending()
    assert server.connections == 2
    single.close()


def test_threads_do_not_share_a_connection(server: WireServer, client: co.Client) -> None:
    """Ten threads at once get their own answers."""
    keys = [client.create("a/b", "w")["id"] for _ in range(10)]
    got: dict[str, list[str]] = {key: [] for key in keys}

    def ask(key: str) -> None:
        for _ in range(20):
            got[key].append(client.get(key)["id"])

    threads = [threading.Thread(target=ask, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {key: [key] * 20 for key in keys}


def test_a_forked_child_uses_no_connection_of_its_parent(server: WireServer, client: co.Client) -> None:
    """After a fork both sides go on with connections of their own."""
    client.pending()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is the point
        child = os.fork()
    if child == 0:
        try:
            client.pending()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    client.pending()
    first, of_child, again = server.of("pending")
    assert first.connection == again.connection != of_child.connection


def test_large_logs_are_compressed_and_small_ones_are_not(server: WireServer, client: co.Client) -> None:
    """A body of a kilobyte or more goes as gzip; the server reads the same entries."""
    key = client.create("a/b", "w")["id"]
    entries = [{"level": "INFO", "message": f"row {os.urandom(20).hex()}"} for _ in range(500)]
    client.logs(key, 1, 0, entries)
    client.logs(key, 1, 500, [{"level": "INFO", "message": "end"}])
    packed, plain = server.of("logs")
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 20_000
    assert "content-encoding" not in plain.headers
    assert server.logs[key] == [*entries, {"level": "INFO", "message": "end"}]


def test_a_body_that_would_look_like_an_attack_goes_plain(server: WireServer, client: co.Client) -> None:
    """Extreme ratios are not used: a server may take them for a bomb."""
    key = client.create("a/b", "w")["id"]
    client.logs(key, 1, 0, [{"level": "INFO", "message": "x" * 1000}] * 200)
    (call,) = server.of("logs")
    assert "content-encoding" not in call.headers


@pytest.mark.parametrize("status", [413, 415])
def test_a_server_that_takes_no_gzip_gets_it_plain(server: WireServer, client: co.Client, status: int) -> None:
    """What is refused compressed is sent as it is."""
    key = client.create("a/b", "w")["id"]
    server.fail("logs", Fault(status=status))
    client.logs(key, 1, 0, [{"level": "INFO", "message": os.urandom(20).hex()} for _ in range(100)])
    assert [call.headers.get("content-encoding") for call in server.of("logs")] == ["gzip", None]
    assert len(server.logs[key]) == 100


def test_a_long_poll_can_be_ended_from_another_thread(server: WireServer, client: co.Client) -> None:
    """A worker that stops does not wait for its poll."""
    abort = Abort()
    waiting = threading.Timer(0.2, abort.now)
    waiting.start()
    begun = time.monotonic()
    with pytest.raises(co.Unavailable):
        client.claim("w", wait_seconds=30, abort=abort)
    assert time.monotonic() - begun < 20
    waiting.join()


def test_a_path_prefix_is_kept(server: WireServer) -> None:
    """A server behind a prefix is reached there."""
    with co.Client(f"{server.url}/cron/", TOKEN) as client:
        client.pending()
    assert server.calls[-1].path.startswith("/cron/api/v1/sdk/executions/pending")


def test_an_answer_that_ends_with_its_connection_is_read(server: WireServer) -> None:
    """A server, or a proxy before it, that closes after each answer is understood like any other."""
    server.always["pending"] = Fault(status=200, headers={"Connection": "close"}, problem={"executions": [{"id": "x"}]})
    with co.Client(server.url, TOKEN) as client:
        assert [client.pending(), client.pending()] == [[{"id": "x"}]] * 2
    assert server.connections == 2

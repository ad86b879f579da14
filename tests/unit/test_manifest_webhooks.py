"""What a manifest may say of executions that are sent as webhooks."""

from __future__ import annotations

from typing import Any

import pytest

from cron_observer import manifest
from cron_observer.manifest import layers, webhooks
from cron_observer.model import DEFAULTS, Context, Definition, effective_queue

URL = "https://jobs.example.org/export"


def found(run: str, more: str = "") -> list[tuple[str, str | None]]:
    """Return code and pointer of each finding about a task with this `run`."""
    head = 'apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\nspec:\n  schedule: {cron: "5 5 * * *"}\n'
    return [
        (one.code, one.pointer) for one in manifest.parse("a.yaml", f"{head}{more}  run: {run}\n".encode()).findings
    ]


def test_the_smallest_webhook_means_this() -> None:
    """Everything but the URL has a default, and no worker's form of running stands beside it."""
    assert manifest.effective({"schedule": {"cron": "5 5 * * *"}, "run": {"http": {"url": URL}}})["run"] == {
        "http": {
            "method": "POST",
            "url": URL,
            "headers": {},
            "body": None,
            "auth": None,
            "signing": None,
            "timeout": "30s",
        }
    }
    assert found(f"{{http: {{url: {URL}}}}}") == []


@pytest.mark.parametrize(
    ("run", "queue"),
    [({"external": {}}, "slow"), ({"http": {"url": URL}}, "@http"), ({"checkin": {}}, "@checkin"), (None, "slow")],
)
def test_the_platform_has_queues_of_its_own(run: Any, queue: str) -> None:
    """What the platform runs itself waits where no worker looks, whatever queue the task names."""
    assert effective_queue({"queue": "slow", "run": run}) == queue


@pytest.mark.parametrize(
    ("run", "more", "expected"),
    [
        ("{http: {}}", "", ("CO1302", "/spec/run/http/url")),
        (f"{{http: {{url: {URL}, verb: GET}}}}", "", ("CO1301", "/spec/run/http/verb")),
        (f"{{http: {{url: {URL}}}, external: {{}}}}", "", ("CO1324", "/spec/run")),
        (f"{{http: {{url: {URL}, timeout: 16m}}}}", "", ("CO1309", "/spec/run/http/timeout")),
        (f"{{http: {{url: {URL}, timeout: 20s}}}}", "  timeout: 10s\n", ("CO1315", "/spec/run/http/timeout")),
        (f"{{http: {{url: {URL}, method: GET, body: x}}}}", "", ("CO1316", "/spec/run/http/body")),
        (f"{{http: {{url: {URL}}}}}", "  queue: slow\n", ("CO1315", "/spec/queue")),
        ("{external: {}}", '  queue: "@http"\n', ("CO1305", "/spec/queue")),
        (f'{{http: {{url: {URL}, body: {{apiToken: "x1y2"}}}}}}', "", ("CO1313", "/spec/run/http/body/apiToken")),
        (f"{{http: {{url: {URL}, auth: {{}}}}}}", "", ("CO1302", "/spec/run/http/auth/secretRef")),
        (f"{{http: {{url: {URL}, signing: {{secretRef: ../x}}}}}}", "", ("CO1305", "/spec/run/http/signing/secretRef")),
        (
            f"{{http: {{url: {URL}, auth: {{secretRef: x, header: Host}}}}}}",
            "",
            ("CO1326", "/spec/run/http/auth/header"),
        ),
    ],
)
def test_what_is_wrong_is_found(run: str, more: str, expected: tuple[str, str]) -> None:
    """Each defect has one finding, at its place."""
    assert found(run, more) == [expected]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://a.example/x",
            "//a.example/x",
            "https://",
            "https:///x",
            "https://u:p@a.example/",
            "https://u@a.example/",
        ),
        *("https://a.example/#x", "https://a.example:0/", "https://a.example:99999/", "https://a.example:x/"),
        *("https://a.example/\r\nX: y", "https://a.example/ä", "https://a b/", "https://a.example\\@b.example/"),
        "https://a.example/" + "x" * 2048,
    ],
)
def test_bad_urls_are_refused(url: str) -> None:
    """No other scheme, no user or password, no fragment, nothing that ends a line."""
    assert webhooks.url_fault(url) is not None


@pytest.mark.parametrize(
    "url", [URL, "http://127.0.0.1:8080/x?y=1", "https://[::1]:8443/", "https://xn--bcher-kva.example"]
)
def test_good_urls_are_taken(url: str) -> None:
    """Whether an address may be reached is for the dispatcher to say."""
    assert webhooks.url_fault(url) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("webhook-id", "x"), ("Webhook-Signature", "x"), ("X-Cron-Observer-Fence", "1"), ("Idempotency-Key", "x")),
        *(("Host", "x"), ("Content-Length", "1"), ("Transfer-Encoding", "chunked"), ("Accept-Encoding", "gzip")),
        *(("Authorization", "Basic x"), ("Cookie", "x=y"), ("traceparent", "00-1"), ("Proxy-Authorization", "x")),
        *(
            ("X-A", "b\r\nX-C: d"),
            ("X-A", "b\x00"),
            ("X-A", "bä"),
            ("X-A", " b"),
            ("X A", "b"),
            ("", "b"),
            ("X:A", "b"),
        ),
    ],
)
def test_headers_of_ours_and_of_the_connection_are_refused(name: str, value: str) -> None:
    """A task sets none that says which execution it is, moves the body, carries a secret, or breaks the line."""
    assert webhooks.header_fault(name, value) is not None


def test_ordinary_headers_are_taken() -> None:
    """Any other header is the task's own."""
    for name, value in (("Content-Type", "text/x; charset=utf-8"), ("X-Team", "billing"), ("User-Agent", "me/1")):
        assert webhooks.header_fault(name, value) is None


def test_a_layer_that_names_another_form_takes_the_place_of_the_one_below() -> None:
    """Defaults send all tasks of a folder; one of them is run by workers, and so are all in an environment."""
    given = Definition(
        kind=DEFAULTS,
        name="all",
        spec={"target": "Task", "spec": {"run": {"http": {"url": URL}}}},
        path="d.yaml",
        line=1,
    )
    spec = {"schedule": {"cron": "5 5 * * *"}, "environments": {"staging": {"run": {"external": {}}}}}
    below, staging = Context(layers=(given,)), Context(environment="staging", layers=(given,))

    assert layers.compose(spec, "a.yaml", below).spec["run"]["http"]["url"] == URL
    assert layers.compose(spec, "a.yaml", staging).spec["run"] == {"external": {}}
    own = {**spec, "run": {"http": {"timeout": "5s"}}}
    assert layers.compose(own, "a.yaml", below).merged["run"] == {"http": {"url": URL, "timeout": "5s"}}


def test_tasks_of_the_api_are_judged_alike() -> None:
    """The body of a request has the same findings, with pointers into it."""
    _, findings = manifest.parse_spec("a", {"schedule": {"every": "1h"}, "run": {"http": {"url": "ftp://x/"}}}, {})

    assert [(one.code, one.pointer) for one in findings] == [("CO1325", "/run/http/url")]

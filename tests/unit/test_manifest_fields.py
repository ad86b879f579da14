"""What validation says about each field: all errors at once, in words, at the place of the value."""

from __future__ import annotations

import pytest

from cron_observer.manifest import parse
from cron_observer.model import Finding
from support.manifests import HEAD, SMALLEST, task

SCHEDULE = "  schedule: {every: 1m}\n"


def findings(text: str) -> tuple[Finding, ...]:
    """Return the findings of a text, in order."""
    return tuple(parse("tasks/a.yaml", text.encode()).findings)


def only(spec: str) -> Finding:
    """Return the only finding of a spec that has a schedule."""
    (one,) = findings(task(SCHEDULE + spec))
    return one


def test_the_smallest_manifest_is_valid() -> None:
    """apiVersion, kind, name and a schedule are enough."""
    assert findings(SMALLEST) == ()


@pytest.mark.parametrize(
    ("spec", "code", "pointer", "column", "message", "hint"),
    [
        ("  retry: {max: 3}\n", "CO1301", "/spec/retry", 3, 'unknown field "retry"', 'did you mean "retries"?'),
        ("  startdeadline: 1m\n", "CO1301", "/spec/startdeadline", 3, "unknown field", '"startDeadline"'),
        ("  cron: x\n", "CO1301", "/spec/cron", 3, "unknown field", "belongs under spec.schedule"),
        ("  retries: {foo: 1}\n", "CO1301", "/spec/retries/foo", 13, "unknown field", "known here: max, backoff"),
        ("  timeout: 90\n", "CO1303", "/spec/timeout", 12, "got the whole number 90", "write 90s"),
        ("  timeout: 1:30\n", "CO1308", "/spec/timeout", 12, 'got the text "1:30"', "90s, 15m, 1h"),
        ('  timeout: "1h\\n"\n', "CO1308", "/spec/timeout", 12, "expected a duration", "digits"),
        ("  timeout: P1Y\n", "CO1308", "/spec/timeout", 12, "expected a duration", "digits"),
        ("  timeout: 8d\n", "CO1309", "/spec/timeout", 12, "expected 1s to 7d, got 8d", None),
        ("  timeout: 0s\n", "CO1309", "/spec/timeout", 12, "expected 1s to 7d, got 0s", None),
        ("  timeout: 999ms\n", "CO1309", "/spec/timeout", 12, "got 999ms", None),
        ("  timeout: 999999999999d\n", "CO1309", "/spec/timeout", 12, "expected 1s to 7d", None),
        ("  startDeadline: 0s\n", "CO1309", "/spec/startDeadline", 18, "expected 1s", None),
        ("  catchup: {window: 0s}\n", "CO1309", "/spec/catchup/window", 21, "expected 1s", None),
        ("  retries: {initial: 500ms}\n", "CO1309", "/spec/retries/initial", 22, "expected 1s to 24h", None),
        ("  retries: {cap: 25h}\n", "CO1309", "/spec/retries/cap", 18, "expected 1s to 24h", None),
        ("  retries: {max: 101}\n", "CO1306", "/spec/retries/max", 18, "expected 0 to 100, got 101", None),
        ("  retries: {max: true}\n", "CO1303", "/spec/retries/max", 18, "expected a whole number, got true", None),
        ("  retries: {max: 1.0}\n", "CO1303", "/spec/retries/max", 18, "got the number 1.0", None),
        ('  retries: {max: "3"}\n', "CO1303", "/spec/retries/max", 18, 'got the text "3"', "remove the quotes"),
        ("  retries: 3\n", "CO1303", "/spec/retries", 12, "expected a mapping", None),
        ("  priority: 10\n", "CO1306", "/spec/priority", 13, "expected 0 to 9", None),
        ("  priority: -1\n", "CO1306", "/spec/priority", 13, "expected 0 to 9", None),
        ("  suspend: yes\n", "CO1303", "/spec/suspend", 12, 'expected true or false, got the text "yes"', None),
        ("  queue: a b\n", "CO1305", "/spec/queue", 10, "does not have the required form", "letters"),
        ("  queue: 1\n", "CO1303", "/spec/queue", 10, "expected a text", "put it in quotes"),
        (
            "  overlap: skp\n",
            "CO1304",
            "/spec/overlap",
            12,
            "expected one of skip, buffer_one, buffer_all",
            'mean "skip"?',
        ),
        ("  late: true\n", "CO1304", "/spec/late", 9, "expected one of accept, record, reject; got true", None),
        ("  catchup: {policy: any}\n", "CO1304", "/spec/catchup/policy", 21, "expected one of none, last, all", None),
        (
            "  run: {}\n",
            "CO1324",
            "/spec/run",
            3,
            "run says exactly one of external, http, checkin; this says nothing",
            None,
        ),
        ("  run: {hosts: {}, external: {}}\n", "CO1301", "/spec/run/hosts", 9, 'unknown field "hosts"', None),
        ("  description: [a]\n", "CO1303", "/spec/description", 3, "expected a text, got a list", None),
        (f"  description: {'x' * 2001}\n", "CO1307", "/spec/description", 16, "at most 2000 characters", None),
    ],
)
def test_each_mistake_is_said_at_its_place(
    spec: str, code: str, pointer: str, column: int, message: str, hint: str | None
) -> None:
    """Code, pointer, line, column, message and hint of the mistakes that people make."""
    one = only(spec)

    assert (code, pointer, 7, column) == (one.code, one.pointer, one.line, one.column)
    assert message in one.message
    assert hint is None or hint in (one.hint or "")
    assert (one.kind, one.name, one.path) == ("Task", "nightly-export", "tasks/a.yaml")


@pytest.mark.parametrize(
    ("schedule", "pointer", "column", "message", "hint"),
    [
        ("{}", "/spec/schedule", 3, "at least one of cron, every and at", "cron"),
        ("{timezone: UTC}", "/spec/schedule", 3, "at least one of cron, every and at", "cron"),
        ('{cron: "0 0 30 2 *"}', "/spec/schedule/cron", 20, "never fires", None),
        ('{cron: ["0 0 * * *", "0 0 31 2 *"]}', "/spec/schedule/cron/1", 34, "never fires", None),
        ('{cron: ["0 0 31 2 *"]}', "/spec/schedule/cron/0", 21, "never fires", None),
        ('{cron: "* * * * * *"}', "/spec/schedule/cron", 20, "6 fields", None),
        ("{every: 1m, timezone: Europe/Berln}", "/spec/schedule/timezone", 35, "Europe/Berln", "Europe/Berlin"),
        ("{every: 500ms}", "/spec/schedule/every", 21, "500ms", None),
        ("{every: 999999999999d}", "/spec/schedule/every", 21, "expected 1s", None),
        ("{at: [2026-01-01T00:00:00, 2026-13-01]}", "/spec/schedule/at/1", 40, "not a time", None),
        ("{every: 1m, anchor: x}", "/spec/schedule/anchor", 33, "not a time", None),
        (
            "{cron: '* * * * *', anchor: '2026-01-01T00:00:00'}",
            "/spec/schedule/anchor",
            33,
            "together with every",
            None,
        ),
    ],
)
def test_schedules_are_judged_by_the_schedule_itself(
    schedule: str, pointer: str, column: int, message: str, hint: str | None
) -> None:
    """Schedules that cannot be evaluated are findings at the very item that is wrong."""
    (one,) = findings(task(f"  schedule: {schedule}\n"))

    assert (pointer, 6, column) == (one.pointer, one.line, one.column)
    assert message in one.message
    assert hint is None or hint in (one.hint or "")


def test_every_part_of_a_schedule_is_reported() -> None:
    """A wrong expression does not hide a wrong time zone, nor another wrong expression."""
    found = findings(task("  schedule: {cron: ['x', '0 0 31 2 *', '* * * * *'], timezone: Mars, at: y}\n"))

    assert [one.pointer for one in found] == [
        "/spec/schedule/cron/0",
        "/spec/schedule/cron/1",
        "/spec/schedule/timezone",
        "/spec/schedule/at",
    ]


def test_all_errors_come_at_once() -> None:
    """One run names every mistake, sorted by place."""
    found = findings(task("  schedul: {}\n  timeout: 1\n  overlap: x\n  retries: {max: 1.5, initial: 0s}\n"))

    assert [one.line for one in found] == [6, 7, 8, 9, 9]


def test_a_misspelled_field_is_not_missing_too() -> None:
    """Where an unknown field is meant for a missing one, only the spelling is reported."""
    assert [one.code for one in findings(task("  scheduel: {every: 1m}\n"))] == ["CO1301"]


def test_a_missing_schedule_is_reported_at_the_spec() -> None:
    """What is missing is shown at what it is missing from."""
    (one,) = findings(task("  timeout: 1h\n"))

    assert (one.code, one.pointer, one.line, one.column) == ("CO1302", "/spec/schedule", 5, 1)


def test_at_most_fifty_findings_a_file() -> None:
    """Findings beyond fifty are counted in one more."""
    found = findings(task(SCHEDULE + "".join(f"  f{number}: 1\n" for number in range(70))))

    assert len(found) == 51
    assert (found[-1].code, found[-1].message) == ("CO1012", "20 more findings are not shown")


@pytest.mark.parametrize("name", ["x\\n", "Nightly", "a_b", "-a", "a-", ".a", "", "a b", "раypal", "x" * 129, "a/b"])
def test_names_that_are_refused(name: str) -> None:
    """A name is exactly what the contract says; a trailing line feed is part of it."""
    (one,) = findings(SMALLEST.replace("nightly-export", f'"{name}"'))

    assert (one.code, one.pointer, one.line, one.column) == ("CO1206", "/metadata/name", 3, 18)


@pytest.mark.parametrize("name", ["a", "0", "a.b-c", "x" * 128, "billing.invoices"])
def test_names_that_are_taken(name: str) -> None:
    """Dots, dashes and 128 characters are allowed."""
    assert findings(SMALLEST.replace("nightly-export", f'"{name}"')) == ()


@pytest.mark.parametrize(
    ("labels", "code", "pointer"),
    [
        ("{tier: 1}", "CO1303", "/metadata/labels/tier"),
        ("{tier: true}", "CO1303", "/metadata/labels/tier"),
        ("{a b: c}", "CO1310", "/metadata/labels/a b"),
        ("{'a\\n': c}", "CO1310", "/metadata/labels/a\\n"),
        ("{-a: c}", "CO1310", "/metadata/labels/-a"),
        (f"{{a: {'x' * 256}}}", "CO1307", "/metadata/labels/a"),
        ("[a]", "CO1303", "/metadata/labels"),
        ("{" + ", ".join(f"k{number}: v" for number in range(65)) + "}", "CO1307", "/metadata/labels"),
    ],
)
def test_labels_are_limited(labels: str, code: str, pointer: str) -> None:
    """Keys and values of labels have limits; numbers and booleans must be quoted."""
    (one,) = findings(f"{HEAD}metadata:\n  name: x\n  labels: {labels}\nspec:\n{SCHEDULE}")

    assert (code, pointer, 5) == (one.code, one.pointer, one.line)


@pytest.mark.parametrize(
    "payload",
    [
        "password: hunter2",
        "dbPassword: hunter2",
        "api-key: abc",
        "db: {token: abc}",
        "list: [{client_secret: abc}]",
        "secrets: {x: AKIAIOSFODNN7EXAMPLE}",
        "note: use ghp_" + "a" * 36,
        "key: co_abcdefgh_" + "A" * 43,
        "url: postgres://user:pass@db/x",
        "pem: -----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_secrets_are_refused_and_never_repeated(payload: str) -> None:
    """What looks like a secret is an error whose text does not hold it."""
    one = only(f"  payload: {{{payload}}}\n")

    assert one.code == "CO1313"
    secret = payload.split(": ", 1)[1].strip("{}[]").split(": ")[-1].removeprefix("use ")
    assert secret not in f"{one.message} {one.hint}"


@pytest.mark.parametrize(
    "payload",
    [
        "password: '${DB_PASSWORD}'",
        'token: "{{ token }}"',
        "secretRef: {name: db}",
        "password: vault:kv/db",
        "password: ''",
        "maxTokens: 4000",
        "token: 12",
        "tokenUrl: https://idp.example/token",
        "passwordFile: /run/secrets/db",
        "url: postgres://db/x",
        "mail: ops@example.org",
    ],
)
def test_references_to_secrets_are_fine(payload: str) -> None:
    """Naming a secret is not holding one."""
    assert findings(task(f"{SCHEDULE}  payload: {{{payload}}}\n")) == ()


def test_a_secret_in_any_text_is_found() -> None:
    """Known forms of keys are found in descriptions and annotations too."""
    assert only("  description: call with AKIAIOSFODNN7EXAMPLE\n").code == "CO1313"


def test_a_wrong_value_that_is_a_secret_is_not_repeated() -> None:
    """Of a value that looks like a secret nothing else is said: a message could quote it."""
    found = findings(task(SCHEDULE + "  priority: AKIAIOSFODNN7EXAMPLE\n"))

    assert [one.code for one in found] == ["CO1313"]
    assert not any("AKIA" in f"{one.message}{one.hint}" for one in found)


def test_a_cap_below_the_initial_wait_is_a_warning() -> None:
    """The task runs, but the author probably meant something else."""
    parsed = parse("a.yaml", task(SCHEDULE + "  retries: {initial: 10m, cap: 1m}\n").encode())

    assert [one.code for one in parsed.findings] == ["CO1314"]
    assert len(parsed.tasks) == 1


def test_what_the_loader_refused_is_not_reported_again() -> None:
    """A number that is too large is one finding, not also a wrong type."""
    assert [one.code for one in findings(task(SCHEDULE + "  priority: 1e999\n"))] == ["CO1116"]

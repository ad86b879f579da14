"""The command line of ``run`` is read strictly: what is unclear exits with 64 before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cron_observer_sdk.options import RunOptions, read


def test_the_shortest_line() -> None:
    """Task and command are enough; the rest has defaults."""
    assert read(["a/b", "--", "make", "all"]) == (
        RunOptions("a/b", 30.0, None, 10.0, None, False),
        ["make", "all"],
    )


def test_every_option() -> None:
    """Times have units, queues may be several."""
    times = ["--lease", "1m", "--timeout", "2h", "--grace", "500ms"]
    words = [*times, "--queue", "x", "--queue", "y", "--no-output", "a/b", "--", "true"]
    assert read(words)[0] == RunOptions("a/b", 60.0, 7200.0, 0.5, ("x", "y"), True)


def test_what_is_sent_and_what_counts(tmp_path: Path) -> None:
    """Sizes are in units of 1024, codes stand between commas, patterns may be several, a file brings variables."""
    (tmp_path / "env").write_text("# ours\n\nexport A=1\nB='two words'\nC=\"x=y\"\nD=\n")
    words = ["--quiet", "--tail-bytes", "2k", "--success-codes", "3,0", "--lock", "--jitter", "5m", "--keep-token"]
    words += ["--redact", "a+", "--redact", "b", "--env-from-file", str(tmp_path / "env"), "--result-file", "r.json"]
    found = read([*words, "a/b", "--", "true"])[0]
    assert (found.quiet, found.tail_bytes, found.success_codes, found.lock) == (True, 2048, (0, 3), True)
    assert (found.jitter, found.redact, found.result_file, found.keep_token) == (300.0, ("a+", "b"), "r.json", True)
    assert found.environment == (("A", "1"), ("B", "two words"), ("C", "x=y"), ("D", ""))
    assert read(["--ping", "k/s", "--", "true"])[0].ping == "k/s"


@pytest.mark.parametrize("sound", [r"eyJ[\w-]+(?:\.[\w-]+)+", r"(a|b)+c", r"(?:\d{3}-)+", r"a+b+", r"(?P<n>k+)=(?P=n)"])
def test_patterns_that_repeat_soundly_are_taken(sound: str) -> None:
    """A repetition inside of another is no trouble where something stands between its turns."""
    assert read(["--redact", sound, "a/b", "--", "true"])[0].redact == (sound,)


def test_the_command_keeps_its_own_dashes() -> None:
    """Everything after the first ``--`` belongs to the command, another ``--`` included."""
    assert read(["a/b", "--", "git", "--", "--lease"])[1] == ["git", "--", "--lease"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a/b", "the command is missing"),
        ("a/b --", "the command is missing"),
        ("a/b true", "unrecognized arguments: true"),
        ("-- true", "the following arguments are required: TASK"),
        ("nightly -- true", "write project/name, such as default/nightly"),
        ("a/b/c -- true", "is not a task"),
        ("--lease 1s a/b -- true", "a lease is 5s to 1h"),
        ("--lease 30 a/b -- true", "'30' is not a duration: write 30s, 15m or 2h"),
        ("--timeout -5s a/b -- true", "expected one argument"),
        ("--time=5s a/b -- true", "unrecognized arguments: --time=5s"),
        ("--ping k/s a/b -- true", "a task or --ping, not both"),
        ("--tail-bytes 1x a/b -- true", "'1x' is not a size: write 64k or 1M"),
        ("--tail-bytes 1k --no-output a/b -- true", "not allowed with argument"),
        ("--queue @http a/b -- true", "queues that begin with @ are the platform's own"),
        ("--tee --quiet a/b -- true", "not allowed with argument"),
        ("--success-codes 0,256 a/b -- true", "are not exit codes: write 0,3"),
        ("--redact ( a/b -- true", "is no regular expression"),
        ("--redact x* a/b -- true", "it would hide everything"),
        ("--redact (a+)+$ a/b -- true", "may take for ever"),
        (r"--redact x(?:(\w+)\s?)*y a/b -- true", "may take for ever"),
        ("--env-from-file /no/such/file a/b -- true", "cannot read /no/such/file: No such file"),
        ("--env-from-file /etc/passwd a/b -- true", "/etc/passwd:1 is no NAME=value"),
    ],
)
def test_what_is_wrong_is_said(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong line exits with 64, shows the usage, and names what to mend."""
    with pytest.raises(SystemExit) as stopped:
        read(line.split())
    assert stopped.value.code == 64
    said = capsys.readouterr().err
    assert said.startswith("usage: cron-observer run [options] TASK -- COMMAND")
    assert words in said

"""The command line of ``run`` is read strictly: what is unclear exits with 64 before anything starts."""

from __future__ import annotations

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

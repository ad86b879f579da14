"""Talking to a child process within bounds, whatever the child does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cron_observer.source.pump import MOST_ERRORS, TooMuch, TooSlow, pump


def child(code: str) -> subprocess.Popen[bytes]:
    """Start a Python that runs some code."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe)


def talk(code: str, stdin: bytes | None = None, within: float = 30.0, most: int = 1 << 30) -> tuple[bytes, bytes]:
    """Talk to a child that runs some code, and end it."""
    with child(code) as process:
        try:
            return pump(process, stdin, within=within, most=most)
        finally:
            process.kill()


def test_much_goes_in_and_out() -> None:
    """A child that answers while it is still being written to is no deadlock, and nothing is lost."""
    data = bytes(range(256)) * 20_000
    code = "import sys\nwhile chunk := sys.stdin.buffer.read1(1000): sys.stdout.buffer.write(chunk)"
    assert talk(code, data) == (data, b"")
    assert talk("import sys; sys.stderr.write('oh')") == (b"", b"oh")


def test_a_child_that_does_not_listen_is_heard() -> None:
    """Whoever does not want to know the rest may still answer."""
    assert talk("import os; os.close(0); print('enough')", b"x" * 1_000_000)[0] == b"enough\n"


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import time, sys; sys.stdout.close(); sys.stderr.close(); import os; os.close(1); os.close(2); time.sleep(60)",
        "import sys\nwhile True: sys.stderr.write('still here'); sys.stderr.flush()",
    ],
)
def test_a_child_that_does_not_end_is_left(code: str) -> None:
    """Silence, closed outputs and endless talk cost no more than the time that is given."""
    began = time.monotonic()
    with pytest.raises(TooSlow):
        talk(code, within=0.5)
    assert time.monotonic() - began < 30


def test_endless_output_is_cut() -> None:
    """More than is taken ends it; of errors the first ones are kept."""
    with pytest.raises(TooMuch):
        talk("while True: print('x' * 1000)", most=100_000)
    output, errors = talk("import sys; sys.stderr.write('first' + 'x' * 1_000_000); print('done')")
    assert output == b"done\n"
    assert errors[:5] == b"first"
    assert len(errors) == MOST_ERRORS


def test_whoever_watches_is_asked_while_the_child_talks() -> None:
    """A child that never falls silent is watched all the same, and an error of the watcher ends it."""
    looks = 0

    def watch() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise LookupError

    with child("import sys\nwhile True: sys.stderr.write('x' * 100); sys.stderr.flush()") as process:
        with pytest.raises(LookupError):
            pump(process, None, within=30.0, most=1, watch=watch)
        process.kill()
    assert looks == 3

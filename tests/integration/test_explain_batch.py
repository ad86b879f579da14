"""`cron-observer explain --batch` as a process: a conversation, and a partner who leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

REQUEST = b'{"id": %d, "schedule": {"cron": "0 12 * * *"}, "after": "2026-03-28T00:00:00Z"}\n'


@pytest.fixture
def batch() -> Iterator[subprocess.Popen[bytes]]:
    """A running batch."""
    command = [sys.executable, "-m", "cron_observer_sdk", "explain", "--batch"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        yield process
        process.kill()


def test_each_line_is_answered_before_the_next_is_written(batch: subprocess.Popen[bytes]) -> None:
    """A program may wait for each answer; the end of its input is the end of the batch."""
    assert batch.stdin is not None
    assert batch.stdout is not None
    for number in range(3):
        batch.stdin.write(REQUEST % number)
        assert json.loads(batch.stdout.readline()) == {"id": number, "fires": ["2026-03-28T12:00:00Z"]}
    batch.stdin.close()
    assert batch.wait(20) == 0


def test_a_partner_who_leaves_ends_the_batch_quietly(batch: subprocess.Popen[bytes]) -> None:
    """A closed pipe is no crash: no traceback, exit code 1."""
    assert batch.stdin is not None
    assert batch.stdout is not None
    assert batch.stderr is not None
    batch.stdin.write(REQUEST % 1)
    batch.stdout.readline()
    batch.stdout.close()
    batch.stdin.write(REQUEST % 2)
    assert batch.wait(20) == 1
    assert batch.stderr.read() == b""

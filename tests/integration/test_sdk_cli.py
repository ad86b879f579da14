"""The console script knows `run` by itself and finds every other command where a distribution offers it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.sdk_cli import SDK, arguments, cli, environment

#: What a distribution that adds commands looks like to Python.
PLUGIN = """
class Serve:
    summary = "Serve the API."
    def __call__(self, arguments):
        print("serving", *arguments)
        return 7

class Hijack:
    summary = "Not the real one."
    def __call__(self, arguments):
        print("hijacked")
        return 0

def commands():
    return {"serve": Serve(), "run": Hijack(), "stop": Stop()}

class Stop:
    summary = "Stop everything."
    def __call__(self, arguments):
        raise KeyboardInterrupt
"""


def plain(*words: str, path: Path | None = None, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the console script in a Python that sees the SDK and `path`, but no other distribution."""
    env = environment(None, PYTHONPATH=f"{SDK}:{path}" if path else str(SDK))
    line = [python, "-S", *arguments(*words)[1:]]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with a distribution that offers commands, and a broken one."""
    for name, module, source in (("good", "good_commands", PLUGIN), ("bad", "bad_commands", "raise ImportError('no')")):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cron_observer.commands]\n{name} = {module}:commands\n")
    return tmp_path


def test_version_and_help_need_no_server() -> None:
    """``--version`` and ``--help`` answer on stdout with 0; nothing at all is a usage error."""
    version = plain("--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, "cron-observer 0.1.0\n", "")
    shown = plain("--help")
    assert shown.returncode == 0
    assert "  run    Run a command and report it as an execution of a task\n" in shown.stdout
    nothing = plain()
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (64, "", shown.stdout)


def test_commands_of_other_distributions_are_found(plugin: Path) -> None:
    """They get the arguments after their name, and their number is the exit code."""
    done = plain("serve", "--port", "1", path=plugin)
    assert (done.returncode, done.stdout) == (7, "serving --port 1\n")
    assert "the commands of 'bad' cannot be loaded: ImportError: no" in done.stderr


def test_help_lists_them_with_their_summaries(plugin: Path) -> None:
    """One line each, in alphabetical order; a broken distribution is named and takes nobody along."""
    shown = plain("--help", path=plugin)
    assert shown.stdout.splitlines()[4:8] == [
        "  run    Run a command and report it as an execution of a task",
        "  serve  Serve the API.",
        "  spool  Look at what waits for a server that was away, send it, drop it",
        "  stop   Stop everything.",
    ]
    assert "'bad'" in shown.stderr


def test_nobody_takes_run_away(plugin: Path) -> None:
    """``run`` is the SDK's own, and no other distribution is even looked at for it."""
    done = plain("run", "a/b", "--", "echo", "mine", path=plugin)
    assert (done.returncode, done.stdout) == (0, "mine\n")
    assert "'bad'" not in done.stderr


def test_an_interrupt_of_a_command_is_130(plugin: Path) -> None:
    """Ctrl-C in a command leaves no traceback."""
    done = plain("stop", path=plugin)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("word", "with_plugin", "words"),
    [
        ("runn", False, "there is no command 'runn'; did you mean 'run'?"),
        ("sirve", True, "there is no command 'sirve'; did you mean 'serve'?"),
        ("serve", False, "the server's commands come with the distribution cron-observer"),
        ("frobnicate", True, "there is no command 'frobnicate'; try cron-observer --help"),
        ("--frob", False, "there is no option --frob; try cron-observer --help"),
    ],
)
def test_unknown_words_are_usage_errors_with_help(plugin: Path, word: str, with_plugin: bool, words: str) -> None:
    """64, and a sentence that leads on."""
    done = plain(word, path=plugin if with_plugin else None)
    assert (done.returncode, done.stdout) == (64, "")
    assert words in done.stderr


def test_help_of_run_explains_itself() -> None:
    """``run --help`` names every option and the exit codes."""
    shown = cli("run", "--help")
    assert shown.returncode == 0
    for word in (b"--lease", b"--timeout", b"--grace", b"--queue", b"--no-output", b"128+n", b"CRON_OBSERVER_URL"):
        assert word in shown.stdout


def test_run_loads_only_what_it_needs() -> None:
    """A cron tick pays for no asyncio, logging, inspect or metadata."""
    script = (
        "import sys; from cron_observer_sdk.cli import main; main(['run', 'a/b', '--', 'true']); "
        "print(sorted(set(sys.modules) & {'asyncio', 'logging', 'inspect', 'importlib.metadata', 'traceback'}))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], env=environment(None), capture_output=True, text=True)
    assert done.stdout == "[]\n"

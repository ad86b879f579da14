"""Crontabs and CronJobs become manifests that say the same, and what they cannot say is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.cli.importing import importing
from cron_observer.importing import Imported, finish, read_cronjobs, read_crontab, written
from cron_observer.manifest import parse
from cron_observer.model import ParsedFile


def crontab(text: str, **options: Any) -> Imported:
    """Read a crontab and judge what came of it."""
    return finish(read_crontab(text, **options))


def told(imported: Imported) -> list[tuple[int | None, str]]:
    """Return line and first words of each note."""
    return [(note.line, note.message) for note in imported.notes]


def reread(imported: Imported) -> ParsedFile:
    """Write the manifests and read them as the reconciler would."""
    return parse("imported.yaml", written(imported.tasks).encode())


def test_a_line_becomes_a_task_that_behaves_as_cron_does() -> None:
    """Zone, comment, command and environment stay; cron's own policies are written out."""
    text = "SHELL=/bin/bash\n# Back it up.\n# Takes an hour.\n30 2 * * 1-5 /opt/back up.sh --full\n"
    (task,) = crontab(text, timezone="Europe/Berlin", queue="backup").tasks
    assert (task.name, task.line) == ("back", 4)
    assert task.spec == {
        "description": "Back it up. Takes an hour.",
        "queue": "backup",
        "schedule": {"cron": "30 2 * * 1-5", "timezone": "Europe/Berlin"},
        "overlap": "allow_all",
        "catchup": {"policy": "none"},
        "timeout": "24h",
        "payload": {"command": "/opt/back up.sh --full", "env": {"SHELL": "/bin/bash"}},
    }


@pytest.mark.parametrize(
    ("line", "schedule"),
    [
        ("@daily x", {"cron": "@daily"}),
        ("*/5 * * * * x", {"cron": "*/5 * * * *"}),
        ("0\t9  *   *\tsun x", {"cron": "0 9 * * sun"}),
        ("*/90 * * * * x", {"cron": "0 * * * *"}),
        ("0~59 4 * * * x", {"cron": "H(0-59) 4 * * *"}),
        ("~ 4 * * * x", {"cron": "H(0-59) 4 * * *"}),
        ("-0 4 * * * x", {"cron": "0 4 * * *"}),
        ("RANDOM_DELAY=30\n0 4 * * * x", {"cron": "0 4 * * *", "jitter": "30m"}),
        ("CRON_TZ=Asia/Tokyo\n0 4 * * * x", {"cron": "0 4 * * *", "timezone": "Asia/Tokyo"}),
        ('TZ="Asia/Tokyo"\n0 4 * * * x', {"cron": "0 4 * * *"}),
    ],
)
def test_schedules_are_read_as_cron_reads_them(line: str, schedule: dict[str, str]) -> None:
    """Macros, names, steps beyond the field, drawn values, delays and zones become what means the same."""
    (task,) = crontab(line).tasks
    assert task.spec["schedule"] == {"timezone": "UTC"} | schedule


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/backup.sh --full", "backup"),
        ("cd /srv && /usr/bin/python3 manage.py sweep", "manage"),
        ("FOO=1 sudo -u www-data nice -n 10 php artisan.php queue", "artisan"),
        ("/usr/bin/flock -n /tmp/lock timeout 5m /opt/Report_2.py", "report-2"),
        ("test -x /x && run-parts /etc/cron.daily", "run-parts"),
        ("'unbalanced", "unbalanced"),
        ("sh -c true", "true"),
    ],
)
def test_a_task_is_named_after_its_program(command: str, name: str) -> None:
    """Shells, wrappers, options, locks and accounts are not what is run."""
    (task,) = crontab(f"0 4 * * * {command}").tasks
    assert task.name == name


def test_names_are_used_once() -> None:
    """The second task of a name gets a number."""
    assert [task.name for task in crontab("0 4 * * * x\n0 5 * * * x\n@daily x").tasks] == ["x", "x-2", "x-3"]


def test_a_percent_sign_begins_the_input() -> None:
    """The first % ends the command, others are lines of its input, and one with a backslash is itself."""
    (task,) = crontab(r"0 4 * * * mail root%one%two \% three").tasks
    assert task.spec["payload"] == {"command": "mail root", "stdin": "one\ntwo % three"}


def test_a_crontab_of_the_system_names_users() -> None:
    """The sixth word is the account; without it the line is refused."""
    imported = crontab("0 4 * * * root x -y\n@daily www z\n0 4 * * * lonely\n", system=True)
    assert [task.spec["payload"] for task in imported.tasks] == [
        {"command": "x -y", "user": "root"},
        {"command": "z", "user": "www"},
    ]
    assert [(note.line, note.refused) for note in imported.notes] == [(3, True)]


def test_what_is_not_said_is_told() -> None:
    """Mail, starts of the machine, lines that are none and schedules that we refuse have a note with their line."""
    text = "MAILTO=me\n@reboot x\n@fortnightly x\nnonsense\n22-4 * * * * x\n0 0 31 2 * y\n0 4 * * * good\n"
    imported = crontab(text)
    assert [task.name for task in imported.tasks] == ["good"]
    assert [note.line for note in imported.notes] == [1, 2, 3, 4, 5, 6]
    assert [note.refused for note in imported.notes] == [False, True, True, True, True, True]


def test_secrets_stay_behind() -> None:
    """A setting that looks like a secret is dropped with a note, a command that holds one is refused."""
    token = "ghp_" + "a" * 36
    imported = crontab(f"DB_PASSWORD=hunter2x\n0 4 * * * x\n0 5 * * * curl -H {token}\n")
    assert "hunter2x" not in written(imported.tasks)
    assert token not in written(imported.tasks)
    assert [(note.line, note.refused) for note in imported.notes] == [(1, False), (3, True)]
    assert all("hunter2x" not in message and token not in message for _, message in told(imported))


def test_jobs_that_are_commented_out_are_no_descriptions() -> None:
    """A line that was switched off is neither imported nor taken for what its neighbour does."""
    (task,) = crontab("#0 3 * * * old\n0 4 * * * new\n").tasks
    assert "description" not in task.spec


@pytest.mark.parametrize(
    "head",
    [
        "# Edit this file to introduce tasks to be run by cron.\n#\n# m h  dom mon dow   command\n",
        "# For details see man 4 crontabs\n# m h dom mon dow user command\n",
        "# Example:\n# .-------- minute (0 - 59)\n# |  .---- hour (0 - 23)\n# *  *  *  *  * user command\n",
        "# * * * * *  command\n# - - - - -\n# | | | | |\n# | | | | +--- day of week\n# +-- minute\n",
        "# ┌───────────── minute (0 - 59)\n# │ ┌─────────── hour\n# │ │\n# * * * * * command\n",
    ],
)
def test_the_head_of_a_crontab_describes_no_task(head: str) -> None:
    """What every new crontab begins with is nothing about its first line; a comment behind it is."""
    (task,) = crontab(head + "0 4 * * * x\n").tasks
    assert "description" not in task.spec
    (task,) = crontab(head + "# Weed the garden\n0 4 * * * x\n").tasks
    assert task.spec["description"] == "Weed the garden"
    assert crontab("# --- Backups ---\n0 4 * * * x\n").tasks[0].spec["description"] == "--- Backups ---"


def test_the_zone_of_commands_is_not_that_of_the_schedule() -> None:
    """cron gives TZ to the command and looks at its own clock; that is said, since people mean the other."""
    imported = crontab("TZ=Asia/Tokyo\n0 4 * * * x\n", timezone="Europe/Berlin")
    assert imported.tasks[0].spec["schedule"]["timezone"] == "Europe/Berlin"
    assert imported.tasks[0].spec["payload"]["env"] == {"TZ": "Asia/Tokyo"}
    assert [line for line, message in told(imported) if "CRON_TZ" in message] == [1]


def test_lines_end_where_cron_ends_them() -> None:
    """A command may hold a form feed or another of the characters that only some programs take for a line's end."""
    imported = crontab("0 4 * * * echo a\x0c0 5 * * * b\u2028@daily c\r\n")
    assert imported.tasks == []
    assert [line for line, _ in told(imported)] == [1]


def test_what_is_refused_is_counted_once() -> None:
    """A line with two errors is one that was not imported."""
    done = run("crontab", "-", text="TZ=x\n60 99 * * * x\nCRON_TZ=Mars/Base\n60 4 * * * y\n0 4 * * *\n")
    assert done.stderr.endswith("0 tasks imported, 3 refused\n")
    assert done.stderr.count("not imported: y") == 2


PIECES = st.sampled_from(
    (
        *("0", "4", "*", "*/5", "*/99", "1-5", "~", "7-1", "sun", "@daily", "@reboot", "root", "x", "%", "\\%", "'"),
        *('"', "#", "A=b", "MAILTO=", "RANDOM_DELAY=5", "CRON_TZ=Asia/Tokyo", "TZ=no", "\t", "\n", "\n0 4 * * *"),
        *("\u202e", "\0", "é"),
    )
)


@given(st.lists(PIECES, max_size=30).map(" ".join), st.booleans())
def test_any_text_is_read(text: str, system: bool) -> None:
    """Whatever a crontab holds, there is an answer, and every manifest that is written is valid."""
    imported = crontab(text, system=system)
    if imported.tasks:
        read = reread(imported)
        assert [task.name for task in read.tasks] == [task.name for task in imported.tasks]
        assert all(finding.severity == "warning" for finding in read.findings)


CRONJOB = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: prod, labels: {team: ops}}
spec:
  schedule: "0 2 * * *"
  timeZone: Europe/Berlin
  concurrencyPolicy: Replace
  startingDeadlineSeconds: 200
  suspend: true
  successfulJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 2
      activeDeadlineSeconds: 600
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: main
              image: busybox
              command: [sh, -c, date]
              env: [{name: MODE, value: full}, {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: t}}}]
"""


def test_a_cronjob_becomes_a_task() -> None:
    """Schedule, policies, deadlines, labels and container stay; what a cluster alone knows is told."""
    imported = finish(read_cronjobs(CRONJOB))
    (task,) = imported.tasks
    assert (task.name, task.labels) == ("nightly", {"team": "ops", "namespace": "prod"})
    assert task.spec == {
        "suspend": True,
        "schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin"},
        "overlap": "terminate_other",
        "catchup": {"policy": "last", "window": "200s"},
        "maxLateness": "200s",
        "timeout": "600s",
        "retries": {"max": 2, "backoff": "exponential", "initial": "10s", "cap": "6m"},
        "payload": {"image": "busybox", "command": ["sh", "-c", "date"], "env": {"MODE": "full"}},
    }
    dropped = [message for _, message in told(imported)]
    assert any("successfulJobsHistoryLimit" in message for message in dropped)
    assert any("TOKEN" in message for message in dropped)


@pytest.mark.parametrize(
    ("policy", "overlap"), [("Allow", "allow_all"), ("Forbid", "skip"), ("Replace", "terminate_other")]
)
def test_concurrency_policies_have_counterparts(policy: str, overlap: str) -> None:
    """Each of the three is one of ours."""
    (task,) = read_cronjobs(CRONJOB.replace("Replace", policy)).tasks
    assert task.spec["overlap"] == overlap


@pytest.mark.parametrize(
    ("written", "schedule"),
    [
        ("0 0 ? * SUN", {"cron": "0 0 * * SUN"}),
        ("@every 1h30m", {"every": "90m"}),
        ("@every 45s", {"every": "45s"}),
        ("TZ=Asia/Tokyo @daily", {"cron": "@daily", "timezone": "Asia/Tokyo"}),
    ],
)
def test_clusters_have_signs_of_their_own(written: str, schedule: dict[str, str]) -> None:
    """A question mark is a star there, and intervals are schedules."""
    imported = finish(read_cronjobs(CRONJOB.replace('"0 2 * * *"', f'"{written}"')))
    (task,) = imported.tasks
    assert task.spec["schedule"] == {"timezone": "Europe/Berlin"} | schedule


def test_nothing_of_a_pod_goes_in_silence() -> None:
    """Labels and annotations of jobs and pods are told as what stands beside them."""
    text = CRONJOB.replace("Template:\n", "Template:\n    metadata: {labels: {a: b}, creationTimestamp: null}\n")
    assert text != CRONJOB
    messages = [message for _, message in told(finish(read_cronjobs(text)))]
    assert any("dropped: labels of spec.jobTemplate.metadata" in message for message in messages)


def test_a_command_with_a_secret_is_not_imported() -> None:
    """A command with a hole is another command."""
    token = "ghp_" + "0aZ9" * 9
    job = {
        "kind": "CronJob",
        "metadata": {"name": "a"},
        "spec": {
            "schedule": "0 2 * * *",
            "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c", "command": ["x", token]}]}}}},
        },
    }
    imported = finish(read_cronjobs(json.dumps(job)))
    assert imported.tasks == []
    assert "payload.command" in imported.refused[0].message
    assert token not in str(imported.notes)


def test_suspended_is_true_or_false() -> None:
    """A text is neither, whatever it says."""
    assert finish(read_cronjobs(CRONJOB.replace("suspend: true", 'suspend: "false"'))).tasks == []


def test_lists_and_json_are_read() -> None:
    """What kubectl prints, in either form, holds the same tasks."""
    one = {
        "kind": "CronJob",
        "metadata": {"name": "a"},
        "spec": {
            "schedule": "CRON_TZ=Asia/Tokyo 0 2 * * *",
            "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}},
        },
    }
    listed = json.dumps({"kind": "List", "items": [one, {"kind": "CronJobList", "items": [one]}, {"kind": "Pod"}]})
    for text in (listed, "# yaml\n" + listed):
        imported = finish(read_cronjobs(text))
        assert [task.name for task in imported.tasks] == ["a", "a-2"]
        assert imported.tasks[0].spec["schedule"] == {"cron": "0 2 * * *", "timezone": "Asia/Tokyo"}
        assert "Pod is no CronJob" in imported.notes[-1].message


@pytest.mark.parametrize(
    "text",
    ["kind: CronJob", "kind: CronJob\nmetadata: {name: a}\nspec: []", "{", "a: [", '{"kind": "CronJob"}', "[" * 500],
)
def test_what_is_no_cronjob_is_refused(text: str) -> None:
    """A broken document, or one of another shape, is a note and nothing else."""
    imported = finish(read_cronjobs(text))
    assert imported.tasks == []
    assert imported.notes


def run(*arguments: str, text: str = "") -> Result:
    """Run the command."""
    return CliRunner().invoke(importing, arguments, input=text)


def test_the_command_writes_a_file_for_each_task(tmp_path: Path) -> None:
    """With --output there is a file a task; files that are there stay, and nothing is written, without --force."""
    folder = tmp_path / "tasks"
    done = run("crontab", "-", "-o", str(folder), text="0 4 * * * x\n0 5 * * * y\n")
    assert (done.exit_code, done.stderr) == (0, "2 tasks imported\n")
    assert sorted(path.name for path in folder.iterdir()) == ["x.yaml", "y.yaml"]
    assert not parse("x.yaml", (folder / "x.yaml").read_bytes()).findings
    again = run("crontab", "-", "-o", str(folder), text="0 6 * * * a\n0 4 * * * x\n")
    assert again.exit_code == 1
    assert "x.yaml is there already" in again.stderr
    assert not (folder / "a.yaml").exists()
    assert run("crontab", "-", "-o", str(folder), "--force", text="0 6 * * * x\n").exit_code == 0
    assert "0 6 * * *" in (folder / "x.yaml").read_text()


def test_the_command_fails_when_something_was_refused(tmp_path: Path) -> None:
    """The good tasks are printed, the refused ones are told with file and line, and the exit code is 1."""
    file = tmp_path / "tab"
    file.write_text("0 4 * * * x\n@reboot y\n")
    done = run("crontab", str(file))
    assert done.exit_code == 1
    assert f"{file}:2: not imported: @reboot" in done.stderr
    assert [task.name for task in parse("a.yaml", done.stdout.encode()).tasks] == ["x"]


def test_an_unknown_zone_is_a_usage_error() -> None:
    """--timezone is looked at before anything is read."""
    done = run("crontab", "-", "--timezone", "Mars/Base", text="0 4 * * * x\n")
    assert done.exit_code == 2
    assert "Mars/Base" in done.stderr

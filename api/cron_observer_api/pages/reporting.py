"""How a task is run or reported from outside, as text to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cron_observer.store.addresses import Doors


def ping_ways(name: str, doors: Doors) -> list[dict[str, str]]:
    """Ways to say how a job goes that somebody else runs: its address, its project's key, Sentry's SDK."""
    url = doors.ping_url
    short = f"""# at the end of a line of the crontab
/opt/jobs/my-script.sh && curl -fsS -m 10 --retry 5 -o /dev/null {url}"""
    whole = f"""RID=$(cat /proc/sys/kernel/random/uuid)
curl -fsS -m 10 --retry 5 -o /dev/null "{url}/start?rid=$RID"
/opt/jobs/my-script.sh > job.log 2>&1
curl -fsS -m 10 --retry 5 -o /dev/null --data-binary @job.log "{url}/$??rid=$RID\""""
    sentry = f"""import sentry_sdk
from sentry_sdk.crons import monitor

sentry_sdk.init(dsn="{doors.sentry_dsn}")


@monitor(monitor_slug="{name}")
def job():
    ..."""
    return [
        {
            "id": "ping",
            "title": "One ping",
            "note": "Says that it succeeded; silence is missed. Whoever knows the address may ping.",
            "text": short,
        },
        {
            "id": "pings",
            "title": "Start and exit code",
            "note": "With a duration, a deadline, failures at once, and the output as log.",
            "text": whole,
        },
        {
            "id": "named",
            "title": "By name",
            "note": "Under the ping key of the project, for clients of Healthchecks: base URL, key and slug.",
            "text": doors.named_url(name),
        },
        {
            "id": "sentry",
            "title": "Sentry's SDK",
            "note": "Its code stays as it is; only the DSN changes.",
            "text": sentry,
        },
    ]


def sent_ways(base: str, http: Mapping[str, Any]) -> list[dict[str, str]]:
    """Ways to answer executions that are sent as webhooks: at once, or later."""
    at_once = f"""{http.get("method", "POST")} {http.get("url", "")}

# 2xx: FINISHED, with the body as result
# 202: it goes on RUNNING until somebody reports its end
# 408, 425, 429, 5xx, no answer: tried again by the task's retries
# anything else: FAILED"""
    later = f"""# ID is the request's webhook-id; RUN_TOKEN and FENCE stand in its headers
# X-Cron-Observer-Run-Token and X-Cron-Observer-Fence
curl -s "{base}/api/v1/sdk/executions/$ID/complete" \\
  -H "Authorization: Bearer $RUN_TOKEN" -H "Content-Type: application/json" \\
  -d '{{"fence": '$FENCE', "outcome": "finished"}}'"""
    return [
        {
            "id": "sent",
            "title": "Webhook",
            "note": "The platform sends each execution; the answer decides.",
            "text": at_once,
        },
        {
            "id": "later",
            "title": "After a 202",
            "note": "Report with the token that the request brought.",
            "text": later,
        },
    ]


def run_ways(base: str, name: str, queue: str) -> list[dict[str, str]]:
    """Ways to run a task as a worker."""
    curl = f"""export CRON_OBSERVER_URL={base}
# CRON_OBSERVER_TOKEN: `cron-observer token create` makes one

# Claim the next due execution; waits up to 30 s for one.
curl -s "$CRON_OBSERVER_URL/api/v1/sdk/claims" \\
  -H "Authorization: Bearer $CRON_OBSERVER_TOKEN" -H "Content-Type: application/json" \\
  -d '{{"worker": "my-laptop", "queues": ["{queue}"], "tasks": ["{name}"], "max": 1, "wait_seconds": 30}}'

# ID and FENCE are in the answer. Send logs, then say how it went.
curl -s "$CRON_OBSERVER_URL/api/v1/sdk/executions/$ID/logs" \\
  -H "Authorization: Bearer $CRON_OBSERVER_TOKEN" -H "Content-Type: application/json" \\
  -d '{{"fence": '$FENCE', "first_seq": 0, "entries": [{{"level": "INFO", "message": "hello"}}]}}'
curl -s "$CRON_OBSERVER_URL/api/v1/sdk/executions/$ID/complete" \\
  -H "Authorization: Bearer $CRON_OBSERVER_TOKEN" -H "Content-Type: application/json" \\
  -d '{{"fence": '$FENCE', "outcome": "finished"}}'"""
    shell = f"""export CRON_OBSERVER_URL={base}
cron-observer run {name} -- /opt/jobs/my-script.sh --with arguments"""
    python = f"""from cron_observer_sdk import Worker


def run(execution):
    execution.log("reading", payload=execution.payload)
    execution.result = {{"rows": 42}}


# Reads CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN.
Worker(queues=["{queue}"]).run({{"{name}": run}})"""
    return [
        {
            "id": "shell",
            "title": "Shell wrapper",
            "note": "Runs a command, sends its output as logs and returns its exit code unchanged.",
            "text": shell,
        },
        {
            "id": "python",
            "title": "Python",
            "note": "A worker: claims, renews its lease, logs and reports.",
            "text": python,
        },
        {"id": "curl", "title": "curl", "note": "The protocol by hand; any language can speak it.", "text": curl},
    ]

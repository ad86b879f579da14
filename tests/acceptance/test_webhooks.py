"""Push a manifest, and see its executions arrive as webhooks: the whole product, with the guide's receiver."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

from support.documents import ROOT, blocks
from support.processes import Repository, clean_environment, free_port, manifest, running, until

GUIDE = (ROOT / "docs/how-to/run-by-webhook.md").read_text(encoding="utf-8")
SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"


def test_a_pushed_webhook_task_is_sent_and_finished(tmp_path: Path) -> None:
    """Executions that fall due each second reach the receiver signed and end as it answers; a dead one fails."""
    (tmp_path / "receiver.py").write_text(next(one.text for one in blocks(GUIDE) if one.language == "python"))
    port, repository = free_port(), Repository(tmp_path)
    signed = (
        f"  run:\n    http:\n      url: http://127.0.0.1:{port}/export\n      signing: {{secretRef: jobs-signing}}\n"
    )
    dead = f"  run:\n    http: {{url: 'http://127.0.0.1:{free_port()}/'}}\n"
    repository.push(
        "Send two tasks",
        {"a.yaml": manifest("export", "every: 1s", signed), "b.yaml": manifest("dead", "every: 1s", dead)},
    )
    command = [sys.executable, str(tmp_path / "receiver.py"), str(port)]
    receiver = subprocess.Popen(command, env=clean_environment(WEBHOOK_SECRET=SECRET), stderr=subprocess.DEVNULL)
    more = {"CRON_OBSERVER_WEBHOOK_NETWORKS": "127.0.0.0/8", "CRON_OBSERVER_SECRET_JOBS_SIGNING": SECRET}
    try:
        with running(tmp_path / "data", "--no-demo", "--repo", str(repository.bare), **more) as product:

            def listed(task: str, status: str) -> list[dict[str, object]]:
                path = f"executions?project=default&task={task}&status={status}&limit=50"
                return product.get(path)["items"]

            done = until(lambda: listed("export", "FINISHED")[2:], "executions that were sent")
            lost = until(lambda: listed("dead", "FAILED"), "executions that could not be sent")
            assert not listed("export", "FAILED,MISSED")
            one = product.get(f"executions/{done[0]['id']}")
            assert (one["queue"], one["result"]["rows"]) == ("@http", 3)
            assert product.get(f"executions/{lost[0]['id']}")["error"]["type"] == "connect"
            assert product.stop() == 0
    finally:
        receiver.kill()
        receiver.wait()

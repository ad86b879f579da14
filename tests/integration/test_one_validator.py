"""There is one validator: the command line, the API and the reconciler say the same of every document."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cron_observer.cli.validate import validate
from cron_observer.reconcile import Reconciler
from cron_observer.settings import Settings, SourceSettings
from support.api import api
from support.databases import FreshDatabase, make_tenant
from support.manifests import altered, specs

#: Severity, code and pointer of what is wrong with a document.
Verdict = set[tuple[str, str, str | None]]

#: Specs that are valid, and specs that are nearly so.
documents = st.lists(specs.flatmap(lambda spec: st.one_of(st.just(spec), altered(spec))), min_size=12, max_size=12)

#: What only an offline check says: it knows the time, and has no other manifests to look at.
OFFLINE = {"CO1320", "CO1414"}

_numbers = itertools.count()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(drawn=documents)
def test_the_three_agree(database: FreshDatabase, tmp_path_factory: Any, drawn: list[dict[str, Any]]) -> None:
    """For each document the errors are the same; where there are none, so is the effective spec."""
    number = next(_numbers)
    asyncio.run(_compare(database, tmp_path_factory.mktemp(f"case-{number}"), f"tenant-{number}", drawn))


async def _compare(database: FreshDatabase, folder: Path, tenant_name: str, drawn: list[dict[str, Any]]) -> None:
    tenant = make_tenant(database, tenant_name)
    manifests = folder / "manifests"
    manifests.mkdir()
    for n, spec in enumerate(drawn):
        document = {"apiVersion": "cron-observer/v1", "kind": "Task", "metadata": {"name": f"t-{n}"}, "spec": spec}
        (manifests / f"t-{n}.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    told = _by_the_command(manifests)
    found: dict[str, Verdict] = {}
    try:
        applied = await _by_the_reconciler(database, tenant_name, manifests, found)
        async with api(tenant) as server:
            for n, spec in enumerate(drawn):
                name = f"t-{n}"
                said = await server.call("PUT", f"/projects/default/tasks/x-{n}", "tasks:write", "read", json=spec)
                errors = {one for one in found.get(name, set()) if one[0] == "error"}
                assert {one for one in told.get(name, set()) if one[0] == "error"} == errors, (spec, name)
                assert _without(told.get(name, set())) == _without(found.get(name, set())), (spec, name)
                if said.status_code == 201:
                    assert errors == set(), (spec, said.text)
                    assert said.json()["spec"] == applied[name]
                else:
                    assert said.status_code in (400, 422), said.text
                    assert _pointed(said.json()["findings"]) == errors, (spec, said.text)
    finally:
        await database.aclose()


def _by_the_command(folder: Path) -> dict[str, Verdict]:
    ran = CliRunner().invoke(validate, [str(folder), "--format", "json"])
    told: dict[str, Verdict] = {}
    for one in json.loads(ran.stdout)["findings"]:
        told.setdefault(Path(one["path"]).stem, set()).add((one["severity"], one["code"], one["pointer"]))
    return told


async def _by_the_reconciler(
    database: FreshDatabase, tenant_name: str, manifests: Path, found: dict[str, Verdict]
) -> dict[str, Any]:
    source = SourceSettings(name="main", url=str(manifests))
    chosen = Settings(data_dir=manifests.parent / "data", tenant=tenant_name, sources=(source,))
    reconciler = Reconciler(database.reconciler, chosen, patience=60, listen=False)
    assert await reconciler.tick() == {"main": "applied"}
    await reconciler.close()
    mine = "SELECT tenant_id FROM tenants WHERE name = %s"
    for row in database.rows(f"SELECT * FROM sync_findings WHERE tenant_id = ({mine})", tenant_name):
        found.setdefault(Path(row["path"]).stem, set()).add((row["severity"], row["code"], row["pointer"]))
    rows = database.rows(f"SELECT name, spec FROM tasks WHERE tenant_id = ({mine})", tenant_name)
    return {row["name"]: row["spec"] for row in rows}


def _pointed(findings: list[dict[str, Any]]) -> Verdict:
    errors = [one for one in findings if one["severity"] == "error"]
    return {(one["severity"], one["code"], f"/spec{one['pointer']}") for one in errors}


def _without(verdict: Verdict) -> Verdict:
    return {one for one in verdict if one[1] not in OFFLINE}

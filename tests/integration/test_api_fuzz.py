"""Generated requests: whatever fits the description, and what does not, is answered as the description says."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.api import served
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

#: Never ends by itself; test_api_stream.py reads it.
WITHOUT_END = "openStream"

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

#: Requests of each kind for each call.
EXAMPLES = 6


def fuzz(
    base: str, described: dict[str, Any], headers: dict[str, str], mode: GenerationMode, real: dict[str, str]
) -> int:
    """Send generated requests to every call and check the answers; return how many were sent.

    `real` are names and ids that exist, put into paths in place of generated ones.
    """
    sent = 0
    for found in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = found.ok()
        if operation.definition.raw["operationId"] == WITHOUT_END:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            nonlocal sent
            if isinstance(case.body, dict):
                case.body.pop("wait_seconds", None)  # nobody has the time
            case.path_parameters.update({name: real[name] for name in case.path_parameters if name in real})
            answer = case.call(base_url=base, headers=headers, timeout=20)
            case.validate_response(answer, checks=CHECKS)
            sent += 1

        with contextlib.suppress(Unsatisfiable):  # a call without parameters cannot be called wrongly
            send()
    return sent


@pytest.mark.parametrize(
    ("mode", "exists"),
    [(GenerationMode.POSITIVE, True), (GenerationMode.POSITIVE, False), (GenerationMode.NEGATIVE, False)],
)
async def test_generated_requests_are_answered_as_described(tenant: Tenant, mode: GenerationMode, exists: bool) -> None:
    """No generated request meets a crash, an undeclared status, another media type or another shape."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    slots = [make_slot(tenant, task, now - timedelta(minutes=minutes)) for minutes in range(1, 4)]
    real = {"project": "default", "name": "export", "execution_id": str(slots[0])} if exists else {}
    async with served(tenant) as it:
        assert it.app is not None
        described = (await it.client.get("/api/v1/openapi.json")).json()
        headers = await it.key("admin")
        sent = await asyncio.to_thread(fuzz, str(it.client.base_url), described, headers, mode, real)
    assert sent > 100

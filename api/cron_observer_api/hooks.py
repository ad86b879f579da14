"""Webhooks of forges: a signed push makes its source look for commits at once, and nothing else.

In this order: how much came, who signed it, what it is. Nothing in a payload is fetched, stored or believed beyond
which ref of which repository has moved; the pass that follows finds out the rest by itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import parse_qs

import structlog
from litestar import Request, Response, post
from litestar.params import FromPath

from cron_observer import forge
from cron_observer.errors import BadRequest, DatabaseError, NotFound, SettingsError, Unauthenticated
from cron_observer.secret import read_secret
from cron_observer.settings import Settings, SourceSettings
from cron_observer.store import hooks, source_reads
from cron_observer.store.engine import clock
from cron_observer_api import body as bodies
from cron_observer_api import metrics, wire
from cron_observer_api.limits import Limiter
from cron_observer_api.operation import answer, declare

#: Bytes of a delivery; those of a push of hundreds of commits have a quarter.
LIMIT: Final = 1024 * 1024

#: Seconds that a delivery may take to arrive.
DEADLINE: Final = 10.0

#: Deliveries of one source that are taken at once, and a second on average: a thousand a minute.
BURST: Final = 1000
RATE: Final = BURST / 60

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

#: The one answer to whatever was signed well: it must not tell which sources and refs there are.
_ACCEPTED: Final = {"accepted": True}

_log = structlog.get_logger("cron_observer.api")


def limiter() -> Limiter:
    """Return what counts the deliveries of sources."""
    return Limiter(RATE, BURST)


def _source(settings: Settings, provider: str, name: str) -> SourceSettings:
    """Return the source that deliveries of `provider` may wake. Raises `NotFound`."""
    for one in settings.sources:
        if one.name == name and one.provider == provider and one.secret_ref:
            return one
    raise NotFound("there is no such webhook", hint="set `provider` and `secret_ref` of the source")


def _secrets(source: SourceSettings) -> list[str]:
    """Read the secrets of a source: two while one is replaced by the other. Raises `DatabaseError` without any."""
    found = []
    for ref in source.secret_ref:
        try:
            found.append(read_secret(ref))
        except SettingsError as error:
            _log.warning("hook_secret_unreadable", source=source.name, reason=error.message)
    if not found:
        raise DatabaseError("the secret of the webhook cannot be read", hint="the server's log says why")
    return found


async def _body(request: Request[Any, Any, Any]) -> bytes:
    try:
        async with asyncio.timeout(DEADLINE):
            return await bodies.read_bytes(request, LIMIT, media_types=(_JSON, _FORM))
    except TimeoutError:
        raise BadRequest(f"the body took longer than {DEADLINE:g} s", hint="send it again") from None


def _payload(request: Request[Any, Any, Any], raw: bytes) -> bytes:
    """Return the JSON of a delivery, which some forges send as a field of a form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return raw
    try:
        (payload,) = parse_qs(raw.decode("ascii"), strict_parsing=True, max_num_fields=8)["payload"]
    except (KeyError, ValueError) as error:
        raise BadRequest("the form has no one field `payload`", hint="let the forge send JSON") from error
    return payload.encode()


@post(
    "/hooks/git/{provider:str}/{source:str}",
    operation_id="receiveWebhook",
    status_code=202,
    opt=declare(
        summary="Take a signed webhook of a forge; a push to the ref that the source follows wakes it",
        tag="sources",
        body=dict[str, Any],
        body_limit=LIMIT,
        media_types=(_JSON, _FORM),
        answers={202: wire.Accepted},
        problems=("not_found", "unauthenticated", "rate_limited", "unavailable"),
        description="Signed as the forge does it: `X-Hub-Signature-256`, `X-Gitlab-Token`, `X-Gitea-Signature` or "
        "`X-Forgejo-Signature`. 404 unless the source has this `provider` and a `secret_ref`. Whatever is signed well "
        "gets the same answer.",
    ),
)
async def receive(request: Request[Any, Any, Any], provider: FromPath[str], source: FromPath[str]) -> Response[bytes]:
    """Wake the source when the delivery says that what it follows has moved."""
    state = request.app.state
    state.limiter.count(request, None, time.monotonic())
    followed = _source(state.settings, provider, source)
    raw = await _body(request)
    headers = list(request.scope["headers"])
    if not forge.verify(provider, headers, raw, await asyncio.to_thread(_secrets, followed)):
        metrics.count_hook(provider, "refused")
        raise Unauthenticated("the delivery is not signed with the secret of this webhook", hint="compare the two")
    state.hook_limiter.count(request, f"hook:{source}", time.monotonic())
    told = forge.delivery_of(provider, headers)
    woken = False
    if told.push:
        push = forge.read_push(provider, _payload(request, raw), bodies.decode)
        woken = await _wake(request, followed, push, told.id)
    metrics.count_hook(provider, "woken" if woken else "ignored")
    return answer(_ACCEPTED, 202)


async def _wake(
    request: Request[Any, Any, Any], source: SourceSettings, push: forge.Push, delivery: str | None
) -> bool:
    """Ask for a pass unless the delivery came before, or is about something else; tell whether it was asked for."""
    state = request.app.state
    tenant_id = state.tenant_id
    async with state.database.transaction([tenant_id]) as conn:
        known = await hooks.followed(conn, tenant_id, source.name)
        if known is None or not forge.concerns(push, source.url, known.ref or source.ref):
            return False
        now = await clock(conn)
        if delivery is not None and not await hooks.see(conn, tenant_id, known.source_id, delivery, now):
            return False
        await source_reads.request_sync(conn, tenant_id, source.name, now, by="push")
    return True


handlers = [receive]

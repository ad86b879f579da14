"""The web pages: read-only, drawn on the server, whole without JavaScript.

`routers` is what the app mounts. Every page reads through ``cron_observer.store.views*`` in one transaction.
"""

from __future__ import annotations

from typing import Final

from litestar import Router

from cron_observer_api.pages import assets, execution, failures, log, overview, preferences, sync, task, tasks

#: What the app mounts: the pages, and the files that they use.
routers: Final = [
    Router(
        path="/",
        route_handlers=[
            overview.overview,
            tasks.tasks,
            task.task,
            execution.execution,
            log.log_lines,
            sync.sync,
            sync.source,
            preferences.preferences,
        ],
        exception_handlers={Exception: failures.show},
    ),
    assets.router,
]

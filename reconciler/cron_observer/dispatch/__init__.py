"""Webhook executions: claimed like any other, sent as HTTP requests, and ended by what is answered.

`loop` claims and bounds what is under way, `attempt` takes one execution from the claim to its report, `reporting`
writes reports many at a time. `request` makes a request of a task and an execution, `sending` sends it to an address
that `guard` has judged, and `answer` reads how it ended. The loop says nothing of secrets, and stores none.
"""

from cron_observer.dispatch.loop import Dispatcher

__all__ = ["Dispatcher"]

"""What `./start` shows a newcomer: a Git repository of examples with one deliberate error, and a worker that runs them.

The demo knows nothing that a user's own setup could not know: manifests come through Git, the worker speaks HTTP.
"""

from cron_observer.demo.repository import make_repository

__all__ = ["make_repository"]

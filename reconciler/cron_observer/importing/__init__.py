"""Other schedulers' files to manifests: crontabs and Kubernetes CronJobs. Pure.

What a manifest cannot say is never dropped in silence: each piece is a `Note` with its line.
"""

from __future__ import annotations

from cron_observer.importing.crontab import read_crontab
from cron_observer.importing.kubernetes import read_cronjobs
from cron_observer.importing.manifests import Imported, Note, Task, finish, written

__all__ = ["Imported", "Note", "Task", "finish", "read_cronjobs", "read_crontab", "written"]

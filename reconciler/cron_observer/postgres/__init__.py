"""The PostgreSQL server that we run ourselves, where no DATABASE_URL names another.

    with launch(data_dir) as server:
        url = server.url("cron_observer_api", "cron_observer")

The first process to launch a data directory holds the server as its child; others attach to it. The server
dies with its holder, cleanly, however the holder ends: who was attached then meets a lost connection, and may
call `launch` again and so become the holder. The server listens on a Unix socket in a folder of mode 0700 and
nowhere else, and trusts who can enter that: its own account and root. SUPERUSER is the role that makes roles
and databases.
"""

from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.postgres.launcher import erase, launch
from cron_observer.postgres.process import die_with_parent
from cron_observer.postgres.providers import Provider, find
from cron_observer.postgres.server import Server

__all__ = ["SUPERUSER", "Provider", "Server", "die_with_parent", "erase", "find", "launch"]

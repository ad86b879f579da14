"""``python -m cron_observer_sdk`` is the console script ``cron-observer``."""

from __future__ import annotations

import sys

from cron_observer_sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""What is worth a second look about new fire times: a task that fires far more often, a crowd, a clock change."""

from __future__ import annotations

from typing import Final

from cron_observer.manifest.rules import Rule
from cron_observer.model import Severity

MORE_OFTEN: Final = Rule("CO1601", "task fires far more often", Severity.WARNING)
CROWD: Final = Rule("CO1602", "many tasks newly fire in one minute", Severity.WARNING)
CLOCK_CHANGE: Final = Rule("CO1603", "clock change touches the new schedule", Severity.WARNING)

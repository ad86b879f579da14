"""When a task fires: cron expressions, intervals and one-off times in a time zone.

Pure: no clock, no I/O but the zone database. The same code plans slots and explains them.
"""

from __future__ import annotations

from cron_observer.schedule.build import check, compile  # noqa: A004 - the word of the trade
from cron_observer.schedule.codes import CODES
from cron_observer.schedule.evaluate import Slot
from cron_observer.schedule.ids import SlotMark, id_ceil, id_floor, id_time, new_id, slot_id
from cron_observer.schedule.slots import Schedule
from cron_observer.schedule.telling import Explanation, Fire, Skipped, explain
from cron_observer.schedule.windows import Windows
from cron_observer.schedule.words import describe
from cron_observer.schedule.zones import Zone, tzdata_version, zone

__all__ = [
    "CODES",
    "Explanation",
    "Fire",
    "Schedule",
    "Skipped",
    "Slot",
    "SlotMark",
    "Windows",
    "Zone",
    "check",
    "compile",
    "describe",
    "explain",
    "id_ceil",
    "id_floor",
    "id_time",
    "new_id",
    "slot_id",
    "tzdata_version",
    "zone",
]

"""The second witness of the slot ledger: what slots there must be, and what is wrong with those that are. Pure."""

from __future__ import annotations

from cron_observer.ledger.facts import Defect, Generation, Range, Row, Verdict
from cron_observer.ledger.judge import Judge
from cron_observer.ledger.nominal import Nominal, nominal_slots, slot_id

__all__ = ["Defect", "Generation", "Judge", "Nominal", "Range", "Row", "Verdict", "nominal_slots", "slot_id"]

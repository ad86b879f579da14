"""Keep what is in force equal to what the sources declare. `Reconciler` is the door.

``loop`` looks which source is due, ``passes`` does one pass over it (look, fetch, verify, compare, read, plan, apply),
``endings`` are the ways in which one ends without applying, ``gather`` and ``layering`` read what has changed,
``applying`` is the one transaction, ``remarks`` what is said of files, ``subjects`` the sources and their rules,
``steps`` where a pass is.
"""

from __future__ import annotations

from cron_observer.reconcile.loop import Reconciler

__all__ = ["Reconciler"]

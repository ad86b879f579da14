"""Forges (GitHub, GitLab, Gitea, Forgejo): what their webhooks tell us, and what we tell them about commits."""

from __future__ import annotations

from cron_observer.forge.deliveries import Delivery, Headers, Push, concerns, delivery_of, read_push, verify
from cron_observer.forge.places import Place, place_of

__all__ = ["Delivery", "Headers", "Place", "Push", "concerns", "delivery_of", "place_of", "read_push", "verify"]

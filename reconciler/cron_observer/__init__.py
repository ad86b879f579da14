"""Cron Observer: a GitOps-driven scheduler and execution tracker."""

__version__ = "0.1.0"

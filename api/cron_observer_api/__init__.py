"""The face of Cron Observer: JSON API, worker protocol and pages."""

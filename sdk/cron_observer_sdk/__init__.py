"""Worker SDK of Cron Observer."""

__version__ = "0.1.0"

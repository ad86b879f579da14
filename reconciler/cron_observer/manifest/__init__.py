"""Manifests: from the text of a file to definitions and findings, and back to a patch of the text.

One validator for the reconciler, the API and the command line. Pure but for `validate_tree`.
"""

from __future__ import annotations

from cron_observer.manifest.body import ABSENT as DELETE
from cron_observer.manifest.body import changes, parse_spec
from cron_observer.manifest.calendar import calendar_files, file_path
from cron_observer.manifest.files import MAX_FILE_BYTES, is_manifest, parse, refused
from cron_observer.manifest.patch import patch
from cron_observer.manifest.rules import RULES, VALIDATOR_VERSION
from cron_observer.manifest.schemas import effective, schema
from cron_observer.manifest.tree import Report, validate_paths, validate_tree

__all__ = [
    "DELETE",
    "MAX_FILE_BYTES",
    "RULES",
    "VALIDATOR_VERSION",
    "Report",
    "calendar_files",
    "changes",
    "effective",
    "file_path",
    "is_manifest",
    "parse",
    "parse_spec",
    "patch",
    "refused",
    "schema",
    "validate_paths",
    "validate_tree",
]

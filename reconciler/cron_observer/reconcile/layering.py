"""Which Defaults and Project the files of a source are read with: those that hold after the pass, decided first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cron_observer.manifest.layers import LAYERS, below, changed_folders, may_bear
from cron_observer.model import Commit, Context, Definition, ParsedFile
from cron_observer.plan import Actual, DesiredFile, layers_after
from cron_observer.source import Entry
from cron_observer.source.reader import Reader
from cron_observer.source.threads import in_thread
from cron_observer.store import layers
from cron_observer.store.engine import Database
from cron_observer.store.sources import Lease

_NOBODY: Final = Commit(id=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layering:
    """What files are read with, and the directories whose layers say something else than what is in force.

    `parsed` are files that were read on the way, and mean the same with `context`.
    """

    context: Context
    folders: Collection[str] = frozenset()
    parsed: Mapping[str, ParsedFile] = field(default_factory=dict)


async def settle(
    database: Database,
    held: Lease,
    reader: Reader,
    in_force: Context,
    read: Sequence[tuple[Entry, bytes]],
    gone: Collection[str],
) -> Layering:
    """Decide which layers hold when the files of `read` are as they are now and those of `gone` are there no more.

    Where no file can have to do with a layer, nothing is asked and nothing is parsed.
    """
    places = {one.path for one in in_force.layers}
    suspects = [(entry, data) for entry, data in read if entry.path in places or may_bear(data)]
    if not suspects and places.isdisjoint(gone):
        return Layering(context=in_force)
    parsed = {entry.path: file for entry, _, file in await in_thread(lambda: list(reader.parse(suspects, in_force)))}
    declaring = [one for one in parsed.values() if _declares(one)]
    if not declaring and places.isdisjoint({*gone, *parsed}):
        return Layering(context=in_force, parsed=parsed)
    async with database.transaction([held.tenant_id]) as conn:
        rows = await layers.inventory(conn, held)
    desired = [DesiredFile(file=_layers_of(one), commit=_NOBODY) for one in parsed.values()]
    after = tuple(layers_after(desired, gone, rows, source_id=held.source_id, project_id=held.project_id))
    folders = changed_folders(in_force.layers, after)
    return Layering(
        context=replace(in_force, layers=after),
        folders=folders,
        # what a finding says of a layer's place may have changed as well: files with findings are read again
        parsed={path: one for path, one in parsed.items() if not (one.findings or is_below(path, folders))},
    )


def is_below(path: str, folders: Collection[str]) -> bool:
    """Tell whether a file is in one of the directories or further down."""
    return any(below(path, folder) for folder in folders)


def _declares(file: ParsedFile) -> bool:
    return any(one.kind in LAYERS for one in file.others) or any(kind in LAYERS for kind, _ in file.broken_others)


def _layers_of(file: ParsedFile) -> ParsedFile:
    """Return what a file declares of layers, and whether it could be read at all."""
    others: list[Definition] = [one for one in file.others if one.kind in LAYERS]
    broken = [one for one in file.broken_others if one[0] in LAYERS]
    return ParsedFile(path=file.path, others=others, broken_others=broken, parseable=file.parseable)


def holds(
    held: Lease,
    desired: Sequence[DesiredFile],
    gone: Collection[str],
    rows: Sequence[Actual],
    read: Sequence[Definition],
) -> bool:
    """Tell whether files that were read with the layers `read` were read with those that hold after the pass.

    Another source may have taken the name of a layer since. `rows` are the layers in force.
    """
    ours = {row.path for row in rows if row.source_id == held.source_id}
    concerned = [one for one in desired if one.file.path in ours or _declares(one.file)]
    if not concerned and not read and ours.isdisjoint(gone):
        return True
    after = layers_after(concerned, gone, rows, source_id=held.source_id, project_id=held.project_id)
    return not changed_folders(read, after)

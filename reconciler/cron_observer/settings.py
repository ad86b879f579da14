"""Settings: flag > environment ``CRON_OBSERVER_*`` > ``cron-observer.toml`` > default, with their origins.

Every number stands here once, with unit, default and reason. What we do not know is an error, never ignored.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from cron_observer.errors import SettingsError
from cron_observer.setting import (
    Setting,
    WrongValueError,
    a_choice,
    a_database,
    a_name,
    a_path,
    a_text,
    a_url,
    a_whole,
    declared,
    networks,
    ports,
    several,
)
from cron_observer.source_settings import SourceSettings

__all__ = ["DEFAULT_FILE", "ROLES", "Setting", "Settings", "SourceSettings", "declared", "load", "redacted"]

#: The settings file that is read when none is named and it exists in the current folder.
DEFAULT_FILE: Final = Path("cron-observer.toml")
PREFIX: Final = "CRON_OBSERVER_"

#: Variables with our prefix that are no settings of the server: the SDK's and its jobs', the launcher's, Git's
#: credentials, secrets of webhooks, the tests'.
_OTHERS: Final = frozenset({"URL", "TOKEN", "PG_BIN", "PYTHON", "LISTEN_FD"})
_OTHERS_PREFIXES: Final = ("EXECUTION_", "GIT_", "SECRET_", "TEST_")

#: The loops' roles, as `serve --role` names them.
ROLES: Final = ("api", "reconciler", "scheduler", "dispatcher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may set. `origins` says for each where its value came from."""

    data_dir: Annotated[
        Path,
        a_path,
        "Folder for the embedded PostgreSQL, Git mirrors and `dev.env`. Default `.cron-observer` below the "
        "current folder, so that a checkout is a whole. A relative path in the file counts from the file.",
    ] = Path(".cron-observer")
    database_url: Annotated[
        str | None,
        a_database,
        "PostgreSQL 15 or newer to use, such as `postgresql://user:password@host/database`. Default: the "
        "embedded server, so that nothing has to be prepared.",
    ] = field(default=None, repr=False)
    database_url_api: Annotated[
        str | None, a_database, "What the API connects with. Default: `database_url`, in the API's role."
    ] = field(default=None, repr=False)
    database_url_reconciler: Annotated[
        str | None, a_database, "The same for the reconciler. Default: `database_url`, in its role."
    ] = field(default=None, repr=False)
    database_url_scheduler: Annotated[
        str | None, a_database, "The same for the scheduler. Default: `database_url`, in its role."
    ] = field(default=None, repr=False)
    host: Annotated[
        str,
        a_text,
        "Address to listen on. Default 127.0.0.1: on loopback, reading needs no key; elsewhere all does.",
    ] = "127.0.0.1"
    port: Annotated[
        int, a_whole(1, 65_535), "TCP port to listen on. Default 8475; `./start` takes the next free one."
    ] = 8475
    base_url: Annotated[
        str | None, a_url, "How people reach the pages, for links. Default: made from `host` and `port`."
    ] = None
    allowed_hosts: Annotated[
        tuple[str, ...],
        several,
        "Host names that a request may carry beside loopback's, `host` and that of `base_url`. Others are "
        "refused with 400, against DNS rebinding. Default: none.",
    ] = ()
    log_format: Annotated[
        str,
        a_choice("auto", "console", "json"),
        "`json` is one object a line, `console` is for people. Default `auto`: console on a terminal, else json.",
    ] = "auto"
    log_level: Annotated[
        str,
        a_choice("debug", "info", "warning", "error"),
        "The least severe line that is written. Default `info`.",
    ] = "info"
    pool_size_api: Annotated[
        int,
        a_whole(2, 200),
        "Connections of an API process, 2 to 200. Default 8, which keeps two cores of PostgreSQL busy; "
        "waiting claims hold none.",
    ] = 8
    pool_size_reconciler: Annotated[
        int, a_whole(1, 50), "Connections of a reconciler, 1 to 50. Default 2: one applies, another looks."
    ] = 2
    pool_size_scheduler: Annotated[
        int,
        a_whole(1, 50),
        "Connections of a scheduler, 1 to 50. Default 2, its own, so that a busy API cannot starve it.",
    ] = 2
    pool_size_dispatcher: Annotated[
        int,
        a_whole(1, 50),
        "Connections of a dispatcher, 1 to 50. Default 3: one claims, one reports; requests hold none.",
    ] = 3
    webhook_concurrency: Annotated[
        int,
        a_whole(1, 2_000),
        "Requests that a dispatcher has under way at once, 1 to 2000. Default 256, of some 100 KiB each.",
    ] = 256
    webhook_per_destination: Annotated[
        int,
        a_whole(1, 1_000),
        "How many of them go to one host and port, 1 to 1000; fewer while most of all are taken. Default 10, so "
        "that a destination that hangs harms only itself.",
    ] = 10
    webhook_networks: Annotated[
        tuple[str, ...],
        networks,
        "Private networks that webhooks may reach, as `10.20.0.0/16`, on any port. Default: none; without one only "
        "addresses of the open Internet are reached.",
    ] = ()
    webhook_ports: Annotated[
        tuple[int, ...],
        ports,
        "Ports that webhooks may reach on the open Internet. Default 80, 443, 8080 and 8443, those of HTTP.",
    ] = (80, 443, 8080, 8443)
    webhook_ca_file: Annotated[
        Path | None, a_path, "Certificates of authorities (PEM) that webhooks trust. Default: those of the system."
    ] = None
    secrets_dir: Annotated[
        Path | None,
        a_path,
        "Folder with the secrets that manifests name: `<project>/<name>`, or `<name>` for all projects. Default: "
        "none; then variables `CRON_OBSERVER_SECRET_<NAME>` alone.",
    ] = None
    retention_days: Annotated[
        int,
        a_whole(7, 3_650),
        "Days that executions, events and logs are kept, 7 to 3650. Default 90, so that a quarter can be "
        "looked back on. They go in whole weeks, never while one of them is open.",
    ] = 90
    statistics_days: Annotated[
        int,
        a_whole(7, 3_650),
        "Days that statistics are kept, 7 to 3650, and never shorter than executions. Default 400: as many days as "
        "the heat calendar and `GET days` can show.",
    ] = 400
    log_cap_mib: Annotated[
        int,
        a_whole(1, 65_536),
        "MiB of log lines that an execution keeps, before compression, all attempts together. Default 256. "
        "Beyond it the first quarter and the latest lines stay; the middle goes, and a marker says how much.",
    ] = 256
    log_cap_lines: Annotated[
        int,
        a_whole(1_000, 1_000_000_000),
        "Lines that one claim of an execution keeps; beyond it the middle goes likewise. Default 10000000.",
    ] = 10_000_000
    tenant: Annotated[str, a_name, "Name of the first tenant, made when it is not there. Default `default`."] = (
        "default"
    )
    project: Annotated[str, a_name, "Name of the first project, made when it is not there. Default `default`."] = (
        "default"
    )
    sources: tuple[SourceSettings, ...] = ()  #: where manifests come from: a `[[sources]]` table each
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def database_of(self, role: str) -> str | None:
        """Return the database URL of `role`; None means the embedded server. A dispatcher acts as a scheduler."""
        own: str | None = getattr(self, f"database_url_{database_role(role)}")
        return own or self.database_url

    def pool_of(self, role: str) -> int:
        """Return how many connections a process of `role` may hold."""
        size: int = getattr(self, f"pool_size_{role}")
        return size

    def shown(self) -> list[tuple[str, str, str]]:
        """Return (name, value, origin) of every setting, with passwords blotted out."""
        rows = [(name, _show(self, name), self.origins.get(name, "default")) for name in _SCALARS]
        for index, source in enumerate(self.sources):
            where = f"sources[{index}]"
            rows += [
                (f"{where}.{name}", _show(source, name), self.origins.get(f"{where}.{name}", "default"))
                for name in _SOURCE_KEYS
            ]
        return rows


def database_role(role: str) -> str:
    """Return the part of the product whose rights in the database a role has."""
    return "scheduler" if role == "dispatcher" else role


_SCALARS: Final = declared(Settings)
_SOURCE_KEYS: Final = declared(SourceSettings)
_REQUIRED: Final = ("name", "url")


def redacted(url: str) -> str:
    """Return a URL with its secrets, if any, replaced by stars."""
    url = re.sub(r"^(https?://)[^/@\s]*@", r"\1***@", url)  # forges take a token as the user
    url = re.sub(r"(?<=://)([^/@\s:]*):[^/@\s]*@", r"\1:***@", url)
    return re.sub(r"(?<=password=)[^&\s]*", "***", url)


def _show(holder: Settings | SourceSettings, name: str) -> str:
    value = getattr(holder, name)
    if value is None:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return redacted(text)


class _Given(NamedTuple):
    """A raw value and where it stood."""

    value: Any
    origin: str


def _suggest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def _read(given: _Given, name: str, setting: Setting) -> Any:
    try:
        return setting.read(given.value)
    except WrongValueError as error:
        raise SettingsError(f"{given.origin}: {name} {error}", hint=setting.doc) from None


def _from_file(path: Path) -> tuple[dict[str, _Given], list[Any]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", hint="give another file, or none") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", hint="mend the file at that place") from error
    sources = document.pop("sources", [])
    if not isinstance(sources, list):
        raise SettingsError(f"{path}: sources must be tables", hint="write [[sources]] with two brackets")
    for key in document:
        if key not in _SCALARS:
            raise SettingsError(f"{path}: unknown setting {key}", hint=_suggest(key, [*_SCALARS, "sources"]))
    return {key: _Given(value, str(path)) for key, value in document.items()}, sources


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        word = variable.removeprefix(PREFIX)
        if word in _OTHERS or word.startswith(_OTHERS_PREFIXES):
            continue
        key = word.lower()
        if key not in _SCALARS or word != key.upper():
            hint = (
                "sources stand in cron-observer.toml"
                if key == "sources"
                else _suggest(variable, [PREFIX + name.upper() for name in _SCALARS])
            )
            raise SettingsError(f"unknown environment variable {variable}", hint=hint)
        given[key] = _Given(value, f"environment {variable}")
    return given


def _is_local(url: str) -> bool:
    return url.startswith("file://") or ("://" not in url and not re.match(r"[^/]*:", url))


#: What a setting of a source is of no use without: set alone, it is a mistake that nobody would notice.
_NEEDED: Final = (
    (("allowed_signers", "gpg_keys", "committers"), "verify", 'set verify to "head" or "range": nothing is verified'),
    (("secret_ref", "status_ref", "forge_url"), "provider", "set provider to the forge that the repository lives on"),
)


def _refuse_useless(source: SourceSettings, where: str, origin: str) -> None:
    """Raise `SettingsError` for a setting that has no effect without another one."""
    for names, needed, hint in _NEEDED:
        useless = [name for name in names if getattr(source, name)]
        if useless and getattr(source, needed) in (None, "none"):
            raise SettingsError(f"{origin}: {where}.{useless[0]} has no effect without {needed}", hint=hint)


def _source(entry: Any, where: str, origin: str, project: str, base: Path | None) -> SourceSettings:
    if not isinstance(entry, Mapping):
        raise SettingsError(f"{origin}: {where} must be a table", hint="write [[sources]] and its keys below")
    for key in entry:
        if key not in _SOURCE_KEYS:
            raise SettingsError(f"{origin}: unknown key {where}.{key}", hint=_suggest(str(key), _SOURCE_KEYS))
    for key in _REQUIRED:
        if key not in entry:
            raise SettingsError(f"{origin}: {where}.{key} is missing", hint=_SOURCE_KEYS[key].doc)
    values = {key: _read(_Given(value, origin), f"{where}.{key}", _SOURCE_KEYS[key]) for key, value in entry.items()}
    local = _is_local(values["url"])
    if local and base is not None and not values["url"].startswith("file://"):
        values["url"] = str(base / Path(values["url"]).expanduser())
    # Git is run in another folder
    values |= {key: (base or Path()).absolute() / value for key, value in values.items() if isinstance(value, Path)}
    values.setdefault("project", project)
    values.setdefault("poll_seconds", 1.0 if local else 30.0)
    source = SourceSettings(**values)
    _refuse_useless(source, where, origin)
    return source


def load(flags: Mapping[str, Any], environ: Mapping[str, str], toml_path: Path | None = None) -> Settings:
    """Read the settings: `flags` win over `environ`, that over the file, that over the defaults.

    `flags` are named like the fields; one that is None was not given. ``flags["sources"]`` (mappings like the
    tables of the file) replaces the file's sources. Raises `SettingsError` on an unknown key or variable and
    on a value that does not fit.
    """
    layers: list[dict[str, _Given]] = []
    entries: list[Any] = []
    sources_origin, base = "default", None
    if toml_path is not None:
        from_file, entries = _from_file(toml_path)
        sources_origin, base = str(toml_path), toml_path.absolute().parent
        if "data_dir" in from_file:
            folder = _read(from_file["data_dir"], "data_dir", _SCALARS["data_dir"])
            from_file["data_dir"] = _Given(base / folder, str(toml_path))
        layers.append(from_file)
    layers.append(_from_environment(environ))
    said = {key: value for key, value in flags.items() if value is not None}
    if "sources" in said:
        entries, sources_origin, base = list(said.pop("sources")), "flag", None
    for key in said:
        if key not in _SCALARS:
            raise SettingsError(f"unknown flag {key}", hint=_suggest(key, [*_SCALARS, "sources"]))
    layers.append({key: _Given(value, f"flag --{key.replace('_', '-')}") for key, value in said.items()})

    chosen: dict[str, _Given] = {key: given for layer in layers for key, given in layer.items()}
    values = {key: _read(given, key, _SCALARS[key]) for key, given in chosen.items()}
    origins = {key: given.origin for key, given in chosen.items()}
    project = values.get("project", "default")
    sources = []
    for index, entry in enumerate(entries):
        sources.append(_source(entry, f"sources[{index}]", sources_origin, project, base))
        origins |= {f"sources[{index}].{key}": sources_origin for key in entry}
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"{sources_origin}: two sources are called {name}", hint="give each source a name of its own"
            )
    return Settings(**values, sources=tuple(sources), origins=origins)

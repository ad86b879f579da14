"""What an operator may say about a source. Every number stands here once, with unit, default and reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cron_observer.setting import (
    a_choice,
    a_name,
    a_number,
    a_path,
    a_secret,
    a_switch,
    a_text,
    a_url,
    a_whole,
    secrets,
    several,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """One entry of ``[[sources]]``: a place that manifests come from."""

    name: Annotated[str, a_name, "What the source is called, on the pages and in commands. Required."]
    url: Annotated[
        str,
        a_text,
        "A Git URL, the path of a repository, or a plain folder, which is watched. Required. A relative path "
        "counts from the settings file.",
    ] = field(repr=False)
    ref: Annotated[str | None, a_text, "Branch or tag to follow. Default: the repository's own HEAD."] = None
    paths: Annotated[
        tuple[str, ...], several, "Folders inside it to read. Default: the whole tree, dot-folders left out."
    ] = ()
    ignore: Annotated[tuple[str, ...], several, "Glob patterns of files to leave out. Default: none."] = ()
    environment: Annotated[
        str | None,
        a_name,
        "The environment that it describes: tasks are as `spec.environments` says of it. Default: none.",
    ] = None
    project: Annotated[str, a_name, "Project of its tasks. Default: the setting `project`."] = "default"
    poll_seconds: Annotated[
        float,
        a_number(0.2, 86_400),
        "Seconds between two looks for new commits, 0.2 to 86400. Default: 1 for a local repository (a look "
        "reads one ref), 30 for a URL (kind to the forge; `sync` does not wait for it).",
    ] = 30.0
    failure_policy: Annotated[
        str,
        a_choice("isolate", "atomic"),
        "What one error in a manifest keeps from being applied. `isolate`: the document alone, which stays at its "
        "last good version. `atomic`: the whole commit. Default `isolate`, so that one team does not hold up another.",
    ] = "isolate"
    mode: Annotated[
        str,
        a_choice("enforce", "observe"),
        "`observe` plans and reports what a commit would change, and changes nothing. Default `enforce`.",
    ] = "enforce"
    prune: Annotated[
        bool,
        a_switch,
        "Whether what is declared nowhere any more is removed. Default true; with false it is held.",
    ] = True
    max_deletes: Annotated[
        int,
        a_whole(0, 1_000_000),
        "Tasks, calendars and groups together that one commit may remove without an approval, however many percent "
        "they are. Default 5.",
    ] = 5
    max_delete_percent: Annotated[
        float,
        a_number(0, 100),
        "More than `max_deletes` removals that are more than so many percent of the source's tasks, calendars and "
        "groups wait for an approval. Default 20. All of a kind, of two or more, always do.",
    ] = 20.0
    purge_after_days: Annotated[
        int,
        a_whole(1, 3_650),
        "Days after which a removed task is forgotten; declared again later it is a new one. Default 30.",
    ] = 30
    on_rewrite: Annotated[
        str,
        a_choice("allow", "hold"),
        "What a push by force does. `hold` keeps what is applied until somebody approves the new history. "
        "Default `allow`: what the branch holds now counts.",
    ] = "allow"
    self_check_hours: Annotated[
        float,
        a_number(0.1, 8_760),
        "Hours between two comparisons of the whole tree with all that is known of it. Default 6.",
    ] = 6.0
    max_megabytes: Annotated[
        int,
        a_whole(1, 1_000_000),
        "MiB that our copy of the repository may take on disk; a fetch that takes more is ended. Default 2048.",
    ] = 2_048
    verify: Annotated[
        str,
        a_choice("none", "head", "range"),
        "Whose signatures are asked for: `head` that of the newest commit, `range` that of every commit since the "
        "one that was applied. Default `none`.",
    ] = "none"
    allowed_signers: Annotated[
        Path | None,
        a_path,
        "File of SSH keys that may sign, in the format of Git's `gpg.ssh.allowedSignersFile`. Default: none.",
    ] = None
    gpg_keys: Annotated[Path | None, a_path, "File of armoured OpenPGP keys that may sign. Default: none."] = None
    committers: Annotated[
        tuple[str, ...],
        several,
        "E-mail addresses of committers that are accepted when signatures are asked for. Default: everybody's.",
    ] = ()
    credentials_ref: Annotated[
        str | None,
        a_secret,
        "Where `user:password`, or a token, for fetching over https is: `env:NAME` or `file:/path`, read at every "
        "fetch. Default: none.",
    ] = None
    ssh_key: Annotated[
        Path | None, a_path, "Private key for fetching over ssh. Default: that of the account, or its agent."
    ] = None
    known_hosts: Annotated[
        Path | None, a_path, "File of host keys that ssh accepts. Default: the account's `known_hosts`."
    ] = None
    ca_file: Annotated[
        Path | None, a_path, "Authorities that may sign the server's certificate, PEM. Default: the machine's."
    ] = None
    provider: Annotated[
        str | None,
        a_choice("github", "gitlab", "gitea", "forgejo"),
        "The forge that the repository lives on: for webhooks and commit statuses. Default: none.",
    ] = None
    secret_ref: Annotated[
        tuple[str, ...],
        secrets,
        "Where the secret of the forge's webhook is: `env:NAME` or `file:/path`; two while it is being changed. "
        "Default: none, and then the webhook's address answers 404.",
    ] = ()
    status_ref: Annotated[
        str | None,
        a_secret,
        "Where the token that may write commit statuses is: `env:NAME` or `file:/path`. Default: none, and then "
        "none are written.",
    ] = None
    forge_url: Annotated[
        str | None,
        a_url,
        "Address of the forge's API. Default: made from `url` and `provider`, such as https://api.github.com.",
    ] = None

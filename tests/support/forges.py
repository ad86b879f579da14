"""Deliveries of webhooks as each forge sends them: header fields, payloads and signatures by their documentation."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

SECRET = "s3cret-of-the-hook"
BEFORE = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
AFTER = "76ae82c7b1a177c8d03f9e96e0adf2466113728f"
DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
PROVIDERS = ("github", "gitlab", "gitea", "forgejo")

#: The repository of all deliveries, as its addresses name it.
ADDRESSES = {
    "github": "https://github.com/acme/tasks.git",
    "gitlab": "https://gitlab.com/acme/platform/tasks.git",
    "gitea": "https://git.example.org/gitea/acme/tasks.git",
    "forgejo": "ssh://git@codeberg.org/acme/tasks.git",
}

_EVENTS = {"github": "push", "gitlab": "Push Hook", "gitea": "push", "forgejo": "push"}


def _github(ref: str, after: str) -> dict[str, Any]:
    author = {"name": "Ada Lovelace", "email": "ada@example.org", "username": "ada"}
    commit = {
        "id": after,
        "tree_id": "f9d2a07e9488b91af2641b26b9407fe22a451433",
        "distinct": True,
        "message": "Export at night",
        "timestamp": "2026-03-02T09:19:37+01:00",
        "url": f"https://github.com/acme/tasks/commit/{after}",
        "author": author,
        "committer": author,
        "added": [],
        "removed": [],
        "modified": ["tasks/export.yaml"],
    }
    return {
        "ref": ref,
        "before": BEFORE,
        "after": after,
        "created": False,
        "deleted": set(after) == {"0"},
        "forced": False,
        "base_ref": None,
        "compare": f"https://github.com/acme/tasks/compare/{BEFORE[:12]}...{after[:12]}",
        "commits": [commit],
        "head_commit": commit,
        "repository": {
            "id": 186853002,
            "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=",
            "name": "tasks",
            "full_name": "acme/tasks",
            "private": True,
            "owner": {"name": "acme", "email": None, "login": "acme", "id": 21031067, "type": "Organization"},
            "html_url": "https://github.com/acme/tasks",
            "clone_url": "https://github.com/acme/tasks.git",
            "ssh_url": "git@github.com:acme/tasks.git",
            "default_branch": "main",
            "created_at": 1557933565,
            "size": 218,
        },
        "pusher": {"name": "ada", "email": "ada@example.org"},
        "sender": {"login": "ada", "id": 21031068, "type": "User", "site_admin": False},
    }


def _gitlab(ref: str, after: str) -> dict[str, Any]:
    project = {
        "id": 15,
        "name": "tasks",
        "description": "",
        "web_url": "https://gitlab.com/acme/platform/tasks",
        "avatar_url": None,
        "git_ssh_url": "git@gitlab.com:acme/platform/tasks.git",
        "git_http_url": "https://gitlab.com/acme/platform/tasks.git",
        "namespace": "platform",
        "visibility_level": 0,
        "path_with_namespace": "acme/platform/tasks",
        "default_branch": "main",
    }
    return {
        "object_kind": "push",
        "event_name": "push",
        "before": BEFORE,
        "after": after,
        "ref": ref,
        "ref_protected": True,
        "checkout_sha": None if set(after) == {"0"} else after,
        "user_id": 4,
        "user_name": "Ada Lovelace",
        "user_username": "ada",
        "project_id": 15,
        "project": project,
        "repository": {
            "name": "tasks",
            "url": "git@gitlab.com:acme/platform/tasks.git",
            "description": "",
            "homepage": "https://gitlab.com/acme/platform/tasks",
            "visibility_level": 0,
        },
        "commits": [
            {
                "id": after,
                "message": "Export at night",
                "title": "Export at night",
                "timestamp": "2026-03-02T09:19:37+01:00",
                "url": f"https://gitlab.com/acme/platform/tasks/-/commit/{after}",
                "author": {"name": "Ada Lovelace", "email": "ada@example.org"},
                "added": [],
                "modified": ["tasks/export.yaml"],
                "removed": [],
            }
        ],
        "total_commits_count": 1,
    }


def _gitea(ref: str, after: str) -> dict[str, Any]:
    person = {"name": "Ada Lovelace", "email": "ada@example.org", "username": "ada"}
    user = {"id": 1, "login": "ada", "full_name": "Ada Lovelace", "email": "ada@example.org", "username": "ada"}
    base = "https://git.example.org/gitea/acme/tasks"
    return {
        "ref": ref,
        "before": BEFORE,
        "after": after,
        "compare_url": f"{base}/compare/{BEFORE}...{after}",
        "commits": [
            {
                "id": after,
                "message": "Export at night\n",
                "url": f"{base}/commit/{after}",
                "author": person,
                "committer": person,
                "verification": None,
                "timestamp": "2026-03-02T09:19:37+01:00",
                "added": None,
                "removed": None,
                "modified": ["tasks/export.yaml"],
            }
        ],
        "total_commits": 1,
        "repository": {
            "id": 140,
            "owner": {"id": 2, "login": "acme", "full_name": "Acme", "username": "acme"},
            "name": "tasks",
            "full_name": "acme/tasks",
            "private": False,
            "html_url": base,
            "ssh_url": "ssh://git@git.example.org/acme/tasks.git",
            "clone_url": f"{base}.git",
            "default_branch": "main",
        },
        "pusher": user,
        "sender": user,
    }


_PAYLOADS = {"github": _github, "gitlab": _gitlab, "gitea": _gitea, "forgejo": _gitea}


def payload(provider: str, *, ref: str = "refs/heads/main", after: str = AFTER) -> dict[str, Any]:
    """Return the payload of a push, as the forge documents it."""
    return _PAYLOADS[provider](ref, after)


def digest(raw: bytes, secret: str = SECRET) -> str:
    """Return the HMAC that forges sign a body with, in hexadecimal."""
    return hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def signed(
    provider: str, raw: bytes, *, secret: str = SECRET, event: str | None = None, delivery: str = DELIVERY
) -> dict[str, str]:
    """Return the header fields of a delivery, as the forge sends and signs them."""
    named = _EVENTS[provider] if event is None else event
    headers = {"Content-Type": "application/json"}
    if provider == "gitlab":
        return headers | {
            "User-Agent": "GitLab/18.4.0",
            "Idempotency-Key": delivery,
            "X-Gitlab-Event": named,
            "X-Gitlab-Webhook-UUID": "a0d0fb4a-6f8a-4b54-8d5a-0f7a6a9c3f10",
            "X-Gitlab-Event-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e",
            "X-Gitlab-Instance": "https://gitlab.com",
            "X-Gitlab-Token": secret,
        }
    mac = digest(raw, secret)
    headers |= {
        "X-GitHub-Event": named,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature": "sha1=" + hmac.new(secret.encode(), raw, hashlib.sha1).hexdigest(),
        "X-Hub-Signature-256": f"sha256={mac}",
    }
    if provider == "github":
        return headers | {"User-Agent": "GitHub-Hookshot/044aadd", "X-GitHub-Hook-ID": "292430182"}
    for name in ("Gogs", "Gitea", *(["Forgejo"] if provider == "forgejo" else [])):
        headers |= {f"X-{name}-Event": named, f"X-{name}-Delivery": delivery, f"X-{name}-Signature": mac}
    return headers


def body(provider: str, **changes: Any) -> bytes:
    """Return the body of a push as bytes."""
    return json.dumps(payload(provider, **changes)).encode()

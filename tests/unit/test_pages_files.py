"""The pages' files: vendored ones as their lock says, ours within their budgets and clean."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cron_observer_api.pages import assets

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "api" / "cron_observer_api"
TEMPLATES = sorted((API / "templates").glob("*.html"))


def test_vendored_files_are_those_of_the_lock() -> None:
    """Every vendored file has the hash of the lock, none is missing or extra, and the notices are current."""
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "vendor", "--check"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_changed_vendored_file_is_noticed(tmp_path: Path) -> None:
    """The check fails for a file whose content is not that of the lock."""
    copy = tmp_path / "repository"
    for part in ("scripts/vendor", "THIRD_PARTY_NOTICES.md"):
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        (copy / part).write_bytes((ROOT / part).read_bytes())
    vendor = API / "static" / "vendor"
    for path in vendor.rglob("*"):
        if path.is_file():
            target = copy / "api/cron_observer_api/static/vendor" / path.relative_to(vendor)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    script = next((copy / "api/cron_observer_api/static/vendor").rglob("htmx.min.js"))
    script.write_bytes(script.read_bytes() + b"//")
    checked = subprocess.run(
        [sys.executable, copy / "scripts" / "vendor", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert checked.stderr == "htmx-4.0.1/htmx.min.js: changed\n"


def test_every_vendored_package_brings_its_licence() -> None:
    """Each package of the lock has a licence file, and the notices hold its name."""
    lock = json.loads((API / "static" / "vendor" / "vendor.lock.json").read_text())
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text()
    for package in lock["packages"]:
        assert any(Path(item["to"]).name == "LICENSE" for item in package["files"])
        assert f"## {package['name']} {package['version']}" in notices
        assert package["integrity"].startswith("sha512-")


@pytest.mark.parametrize(("name", "most"), [("app.css", 14_000), ("app.js", 12_000)])
def test_our_files_stay_small(name: str, most: int) -> None:
    """Our style sheet and our script each fit their budget of compressed bytes."""
    assert len(gzip.compress((API / "static" / name).read_bytes())) <= most


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_keep_to_the_policy(template: Path) -> None:
    """No template has inline styles, inline scripts, handlers, other hosts, or switches escaping off."""
    text = template.read_text()
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:|https?://|\|\s*safe\b|autoescape", text)
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []


def test_our_script_evaluates_nothing() -> None:
    """Our script builds no code and no HTML from text, and talks to this server only."""
    text = (API / "static" / "app.js").read_text()
    assert not re.search(
        r"\beval\(|new Function|innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|https?://", text
    )


def test_every_icon_of_a_template_is_in_the_sprite() -> None:
    """No template asks for an icon or a glyph that is not there."""
    icons = (API / "static/vendor/lucide-1.62.0/icons.svg").read_text()
    glyphs = (API / "static/glyphs.svg").read_text()
    text = "".join(path.read_text() for path in TEMPLATES)
    named = [
        *re.findall(r'icon\("([a-z-]+)"\)', text),
        "layout-dashboard",
        "list",
        "git-branch",
        "monitor",
        "sun",
        "moon",
    ]
    for name in named:
        assert f'<symbol id="{name}"' in icons, name
    for name in re.findall(r'glyph\("([a-z]+)"\)', text):
        assert f'<symbol id="{name}"' in glyphs, name


def test_names_follow_content() -> None:
    """Our files are addressed by the hash of their content, vendored ones by their version."""
    assert re.fullmatch(r"/static/app\.css\?v=[0-9a-f]{16}", assets.url("app.css"))
    assert assets.url("vendor/htmx-4.0.1/htmx.min.js") == "/static/vendor/htmx-4.0.1/htmx.min.js"


def test_the_colours_of_words_can_be_read() -> None:
    """Text and status colours keep 4.5 : 1 on every background, in both themes."""
    tokens = dict(re.findall(r"--([a-z-]+): light-dark\((.*?)\);", (API / "static/app.css").read_text()))
    for theme in (0, 1):
        for ground in ("bg", "surface", "sunken"):
            for word in ("text", "muted", "accent", "ok", "fail", "run", "late", "skip", "cancel"):
                ratio = _contrast(_pick(tokens[word], theme), _pick(tokens[ground], theme))
                assert ratio >= 4.5, (word, ground, theme, ratio)


def _pick(pair: str, theme: int) -> tuple[float, float, float]:
    """Return the linear RGB of one side of a light-dark() pair."""
    parts = re.findall(r"oklch\([^)]*\)|#[0-9a-f]+", pair)
    return _linear(parts[theme])


def _linear(colour: str) -> tuple[float, float, float]:
    from math import cos, radians, sin

    if colour.startswith("#"):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)  # type: ignore[return-value]
    light, chroma, hue = (float(number) for number in colour[6:-1].split())
    a, b = chroma * cos(radians(hue)), chroma * sin(radians(hue))
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.291485548 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.707614701 * short
    return tuple(min(1.0, max(0.0, channel)) for channel in (red, green, blue))  # type: ignore[return-value]


def _contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    weights = (0.2126, 0.7152, 0.0722)
    light, dark = sorted((sum(w * c for w, c in zip(weights, rgb, strict=True)) for rgb in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)

#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""release_check.py [TREE]: what of the tree is not ready for a release, one line each.

docs/releases.md has the steps.
"""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any
from urllib.parse import urlsplit

import yaml

ADDRESSES = ("repository", "documentation", "homepage", "issues")
# RFC 2606 and RFC 6761: nobody can have these.
RESERVED = re.compile(r"(^|\.)(example|invalid|test|localhost)(\.(com|net|org))?$")


def problems(root: pathlib.Path) -> list[str]:
    """One sentence for each thing that keeps this tree from being released."""
    galaxy: dict[str, Any] = yaml.safe_load((root / "galaxy.yml").read_text())
    return [*addresses(galaxy), *version(galaxy, root), *fragments(root)]


def addresses(galaxy: dict[str, Any]) -> list[str]:
    """Those of galaxy.yml that lead nowhere."""
    found = []
    for key in ADDRESSES:
        address = str(galaxy.get(key) or "")
        parts = urlsplit(address)
        if parts.scheme != "https" or not parts.hostname:
            found.append(f"galaxy.yml: {key} is {address or 'empty'}, not an address with https.")
        elif RESERVED.search(parts.hostname):
            found.append(f"galaxy.yml: {key} is the placeholder {address}; put the collection's own address there.")
    return found


def version(galaxy: dict[str, Any], root: pathlib.Path) -> list[str]:
    """Whether the changelog has the release of galaxy.yml's version."""
    wanted = str(galaxy.get("version"))
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", wanted):
        return [f"galaxy.yml: version is {wanted}, not MAJOR.MINOR.PATCH."]
    releases = (yaml.safe_load((root / "changelogs" / "changelog.yaml").read_text()) or {}).get("releases") or {}
    if wanted not in releases:
        return [f"changelogs/changelog.yaml has no release {wanted}; run antsibull-changelog release."]
    newest = max(releases, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    found = []
    if newest != wanted:
        found.append(f"changelogs/changelog.yaml has a newer release, {newest}, than galaxy.yml's version {wanted}.")
    if f"\nv{wanted}\n" not in (root / "CHANGELOG.rst").read_text():
        found.append(f"CHANGELOG.rst has no section v{wanted}; run make changelog.")
    return found


def fragments(root: pathlib.Path) -> list[str]:
    """Changes that are in no release yet."""
    waiting = sorted(path.name for path in (root / "changelogs" / "fragments").glob("*.y*ml"))
    if not waiting:
        return []
    said = f"changelogs/fragments holds {len(waiting)} fragment(s) that are in no release, such as {waiting[0]}"
    return [f"{said}; run antsibull-changelog release."]


def main(root: pathlib.Path) -> int:
    """Say the problems; whether there are any is the exit status."""
    found = problems(root)
    for line in found:
        print(line)
    if not found:
        print("ready for a release")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]))

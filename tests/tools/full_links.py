#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""full_links.py TREE: in TREE's READMEs, which Galaxy shows away from the files beside them, links become full ones.

The address is that of ``repository`` in galaxy.yml, at the tag of its version. A link to no file ends it.
"""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Collection

import yaml

# The target of a Markdown link or image; what has a scheme, or is within the page, stays.
LINK = re.compile(r"(?<=\]\()(?!#|[a-z][a-z+.-]*:)([^)\s#]+)(#[^)\s]*)?(?=\))")


def full(text: str, folder: str, base: str, root: pathlib.Path, near: Collection[pathlib.Path] = ()) -> str:
    """The text of a page in ``folder`` with full links below ``base``; those to the pages ``near`` stay."""

    def replaced(match: re.Match[str]) -> str:
        target = (root / folder / match[1]).resolve()
        if not target.is_relative_to(root) or not target.exists():
            raise SystemExit(f"a page in {folder or '.'} links to {match[1]}, and there is no such file.")
        if target in near:
            return match[0]
        return f"{base}/{target.relative_to(root).as_posix()}{match[2] or ''}"

    return LINK.sub(replaced, text)


def base(root: pathlib.Path) -> str:
    """The address of the tree's files."""
    galaxy = yaml.safe_load((root / "galaxy.yml").read_text())
    return f"{galaxy['repository']}/blob/{galaxy['version']}"


def pages(root: pathlib.Path) -> list[pathlib.Path]:
    """What Galaxy shows: the collection's README and those of its roles."""
    return [root / "README.md", *sorted(root.glob("roles/*/README.md"))]


def main(root: pathlib.Path) -> None:
    """Rewrite the pages."""
    root = root.resolve()
    for page in pages(root):
        folder = page.parent.relative_to(root).as_posix()
        page.write_text(full(page.read_text(), folder, base(root), root))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

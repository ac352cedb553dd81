#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""site_pages.py TREE SOURCE: copies the pages that SOURCE/index.rst names; links to others become full ones."""

from __future__ import annotations

import pathlib
import re
import shutil
import sys

import full_links


def named(index: str) -> list[str]:
    """The entries of all tables of contents, those with a title of their own too."""
    return re.findall(r"^   (?:\w.* <(?=.*>$))?([\w./-]+)>?$", index, re.MULTILINE)


def main(root: pathlib.Path, source: pathlib.Path) -> None:
    """Copy them; what antsibull-docs or the site itself has is there already."""
    root = root.resolve()
    base = full_links.base(root)
    wanted = [name for name in named((source / "index.rst").read_text()) if (root / f"{name}.md").is_file()]
    pages = {root / f"{name}.md" for name in wanted}
    for page in pages:
        target = source / page.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = page.parent.relative_to(root).as_posix()
        target.write_text(full_links.full(page.read_text(), folder, base, root, pages))
    shutil.copy(root / "CHANGELOG.rst", source)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))

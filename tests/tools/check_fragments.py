#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""check_fragments.py BASE: whether what users see differs from BASE without a changelog fragment.

Run in the repository. Users see plugins, roles, playbooks, meta, requirements and galaxy.yml. What they do not
notice (a comment, a name inside) has a fragment in the section ``trivial``, which no changelog shows.
"""

from __future__ import annotations

import subprocess
import sys

SEEN = ("plugins/", "roles/", "playbooks/", "meta/", "requirements/", "galaxy.yml")
FRAGMENTS = "changelogs/fragments/"


def problem(changed: list[str]) -> str | None:
    """What is wrong with a change of these files; documents in Markdown are no change of behaviour."""
    seen = [path for path in changed if path.startswith(SEEN) and not path.endswith(".md")]
    # A release takes the fragments into this file.
    if not seen or any(path.startswith(FRAGMENTS) or path == "changelogs/changelog.yaml" for path in changed):
        return None
    return (
        f"{len(seen)} file(s) that users see were changed, such as {seen[0]}, without a changelog fragment. "
        f"Add {FRAGMENTS}NAME.yml (CONTRIBUTING.md says how); for what users do not notice, in the section trivial."
    )


def git(*arguments: str) -> str:
    """What git says."""
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def main(base: str) -> int:
    """Compare with where this branch left ``base``, changes that are not committed included."""
    start = git("merge-base", base, "HEAD").strip()
    untracked = git("ls-files", "--others", "--exclude-standard", "--", FRAGMENTS).splitlines()
    found = problem([*git("diff", "--name-only", start).splitlines(), *untracked])
    if found:
        print(found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

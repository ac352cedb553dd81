#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""requirements_for.py PYTHON FILE...: what those files have for that Python, hashes included, without markers.

``pip download --python-version`` judges markers by the Python that it runs on.
"""

from __future__ import annotations

import pathlib
import sys

from packaging.requirements import Requirement


def chosen(text: str, python: str) -> list[str]:
    """The requirements of that file's text for Python ``python``, such as 3.9."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        wanted, *hashes = line.partition("#")[0].split("--hash=")
        if not wanted.strip():
            continue
        requirement = Requirement(wanted.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            options = "".join(f" --hash={one.strip()}" for one in hashes)
            found.append(f"{requirement.name}{requirement.specifier}{options}")
    return found


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print("\n".join(chosen(pathlib.Path(name).read_text(), sys.argv[1])))

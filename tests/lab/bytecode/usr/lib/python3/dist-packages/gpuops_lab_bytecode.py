# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For a node that runs many modules: what Python has compiled out of a zip archive, it loads the next time.

Ansible sends a module as such an archive, and a node compiles its two hundred files for each task, nearly half of what
the task costs. A layer of nodes (``lab up --layer``), whose Python calls this when it starts; nobody measures in them.
"""

from __future__ import annotations

import os
import zipimport
from types import CodeType
from typing import Any

#: Root's alone; listings of a node do not compare it.
PLACE = "/var/cache/gpuops-lab-bytecode"
_ARCHIVE = ".zip/"


def keep(place: str = PLACE, importer: Any = zipimport) -> None:
    """Have ``importer`` keep bytecode below ``place`` from here on."""
    if os.geteuid():
        return
    plain = importer._compile_source

    def compiled(path: str, source: bytes) -> CodeType:
        import importlib.util
        import marshal

        # The archive lies in another directory each time.
        name = path[path.rfind(_ARCHIVE) + len(_ARCHIVE) :] if _ARCHIVE in path else path
        kept = os.path.join(place, importlib.util.source_hash(name.encode() + b"\0" + source).hex())
        if os.path.exists(kept):
            with open(kept, "rb") as file:
                found: CodeType = marshal.load(file)
            return found
        code: CodeType = plain(name, source)
        os.makedirs(place, 0o700, exist_ok=True)
        temporary = f"{kept}.{os.getpid()}"
        with open(temporary, "wb") as file:
            marshal.dump(code, file)
        os.rename(temporary, kept)
        return code

    importer._compile_source = compiled

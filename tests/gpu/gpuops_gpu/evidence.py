# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ends of the logs that explain a failure, kept in one file before they are removed."""

from __future__ import annotations

import dataclasses
import os
import pathlib

END = 100_000
LIMIT = 12 * 1024 * 1024
NAMES = (".log", ".json", ".conf")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """``places`` are walked for logs of workloads, CRIU and the role."""

    target: pathlib.Path
    places: tuple[pathlib.Path, ...]

    def keep(self, when: str) -> None:
        """Append what is there now."""
        for place in self.places:
            for directory, _, files in os.walk(place):
                for name in sorted(files):
                    path = pathlib.Path(directory, name)
                    if name.endswith(NAMES) and "rootfs" not in path.parts and name != "config.json":
                        self.append(when, path)

    def append(self, when: str, path: pathlib.Path) -> None:
        """The end of one file; the file of evidence does not grow past its limit."""
        try:
            with path.open("rb") as source:
                source.seek(max(0, path.stat().st_size - END))
                text = source.read().decode(errors="replace")
        except OSError as error:
            text = f"cannot be read: {error}"
        with self.target.open("a", encoding="utf-8", errors="replace") as stream:
            if stream.tell() < LIMIT:
                stream.write(f"==> {when}: {path}\n{text}\n")

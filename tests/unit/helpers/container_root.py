# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's root file system with links that lead out of it."""

from __future__ import annotations

import os
from pathlib import Path


def make(directory: Path) -> Path:
    """Below ``directory``, beside a file of the node's."""
    (directory / "secret").write_text("of the node", encoding="utf-8")
    inside = directory / "root"
    (inside / "var").mkdir(parents=True)
    (inside / "var/count").write_text("1", encoding="utf-8")
    (inside / "link").symlink_to("/var/count")
    (inside / "out").symlink_to(str(directory / "secret"))
    (inside / "up").symlink_to("../secret")
    (inside / "directory").symlink_to("..")
    os.mkfifo(inside / "fifo")
    return inside

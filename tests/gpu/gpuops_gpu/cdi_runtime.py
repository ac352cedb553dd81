#!/usr/bin/python3 -I
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for nvidia-container-runtime in its mode cdi: puts what a CDI spec lists into the bundle, then is runc.

The spec lies beside this program (``cdi.json``); it has the driver files and device nodes that this host really has.
A tmpfs and a bind at one place are the bind alone, as CRI makes the specs of pods and ctr cannot.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    words = sys.argv[1:]
    if "create" in words and "--bundle" in words:
        edit(f"{words[words.index('--bundle') + 1]}/config.json")
    os.execvp("runc", ["runc", *words])


def edit(path: str) -> None:
    """Apply the spec's containerEdits."""
    with open(path, encoding="utf-8") as stream:
        spec = json.load(stream)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cdi.json"), encoding="utf-8") as stream:
        edits = json.load(stream)["containerEdits"]
    binds = {mount["destination"] for mount in spec["mounts"] if mount["type"] == "bind"}
    spec["mounts"] = [one for one in spec["mounts"] if one["type"] != "tmpfs" or one["destination"] not in binds]
    for mount in edits["mounts"]:
        entry = {"source": mount["hostPath"], "destination": mount["containerPath"], "type": "bind"}
        spec["mounts"].append({**entry, "options": mount["options"]})
    for node in edits["deviceNodes"]:
        number = os.stat(node["path"]).st_rdev
        device = {"type": "c", "major": os.major(number), "minor": os.minor(number)}
        spec["linux"].setdefault("devices", []).append({**device, "path": node["path"]})
        spec["linux"]["resources"]["devices"].append({**device, "allow": True, "access": "rwm"})
    spec["process"]["env"] += edits["env"]
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(spec, stream)


if __name__ == "__main__":
    main()

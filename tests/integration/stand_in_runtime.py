#!/usr/bin/python3 -I
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for nvidia-container-runtime, as a BinaryName of containerd's: edits the bundle, then becomes runc.

STAND_IN in the container's environment says how. ``cdi``: libraries, a device and a variable are added to the spec;
``pod`` is the same, and the sandbox's /dev/shm is the only one, as CRI makes a spec and ctr cannot.
``hook``: a prestart hook is, this program again, which mounts them into the container as the NVIDIA runtime's legacy
mode does. ``scratch``: the hook mounts what is nowhere on the node.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

DRIVER = "/srv/driver"
LIBRARY = "libcuda.so.580.159.04"
#: The kernel's loop-control: it is everywhere, and no container may open it by default. Nodes of the lab have none in
#: /dev; what is bound has to be there.
DEVICE = ("/dev/loop-control", 10, 237)
BOUND_DEVICE = "/dev/stand-in"
#: Where runc makes no mount, and NVIDIA's hooks do.
PROC = (f"{DRIVER}/params", "/proc/version")
_BIND, _RDONLY, _REMOUNT = 4096, 1, 32


def main() -> None:
    """Called as runc is, or as a hook."""
    if sys.argv[1:2] == ["hook"]:
        hook(json.load(sys.stdin))
        return
    words = sys.argv[1:]
    if "create" in words and "--bundle" in words:
        edit(f"{words[words.index('--bundle') + 1]}/config.json")
    os.execvp("runc", ["runc", *words])


def edit(path: str) -> None:
    """What the runtime makes of a bundle."""
    with open(path, encoding="utf-8") as stream:
        spec = json.load(stream)
    how = dict(line.split("=", 1) for line in spec["process"]["env"]).get("STAND_IN", "")
    if how == "pod":
        spec["mounts"] = [one for one in spec["mounts"] if (one["destination"], one["type"]) != ("/dev/shm", "tmpfs")]
    if how in ("cdi", "pod"):
        for source, destination in mounts():
            options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
            spec["mounts"].append({"source": source, "destination": destination, "type": "bind", "options": options})
        device, major, minor = DEVICE
        spec["linux"].setdefault("devices", []).append({"path": device, "type": "c", "major": major, "minor": minor})
        rule = {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        spec["linux"]["resources"]["devices"].append(rule)
        spec["process"]["env"].append("STAND_IN_DRIVER=580.159.04")
    elif how:
        program = {"path": os.path.abspath(__file__), "args": ["stand-in", "hook", how], "env": ["PATH=/usr/bin"]}
        spec.setdefault("hooks", {}).setdefault("prestart", []).append(program)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(spec, stream)


def mounts() -> list[tuple[str, str]]:
    """Sources on the node, and where they go: below a link of the image, too."""
    return [
        (f"{DRIVER}/{LIBRARY}", f"/lib/{LIBRARY}"),
        (f"{DRIVER}/smi", "/bin/stand-in-smi"),
        ("/run/stand-in/socket", "/var/run/stand-in/socket"),
    ]


def hook(state: dict[str, object]) -> None:
    """Into the container's mounts, before its root is changed. NVIDIA's opens the device group, too."""
    rootfs = f"{state['bundle']}/rootfs"
    os.setns(os.open(f"/proc/{state['pid']}/ns/mnt", os.O_RDONLY), 0x20000)  # type: ignore[attr-defined]
    if sys.argv[2] == "scratch":
        os.makedirs(f"{rootfs}/scratch", exist_ok=True)
        mount("none", f"{rootfs}/scratch", 0, "ramfs")
        return
    for source, destination in [*mounts(), (BOUND_DEVICE, BOUND_DEVICE), PROC]:
        place = rootfs + destination.replace("/lib/", "/usr/lib/").replace("/var/run/", "/run/")
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if not os.path.exists(place):
            os.mknod(place)
        mount(source, place, _BIND)
        if destination != BOUND_DEVICE:
            mount("none", place, _BIND | _REMOUNT | _RDONLY)


def mount(source: str, place: str, flags: int, kind: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), place.encode(), kind.encode() or None, flags, None):
        sys.exit(f"{place}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()

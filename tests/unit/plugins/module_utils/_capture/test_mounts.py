# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import mounts
from ansible_collections.gpuops.restore.plugins.module_utils._capture.mounts import Taken
from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo
from ansible_collections.gpuops.restore.plugins.module_utils._host.mountinfo import Mount

SPEC: dict[str, Any] = {
    "mounts": [
        {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind"]},
        {"destination": "/etc/hosts/", "type": "none", "source": "/x", "options": ["bind"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
    ],
    "linux": {"maskedPaths": ["/proc/kcore"]},
}
OWN = (
    "1 0 0:50 / / rw - overlay overlay rw\n"
    "2 1 0:51 / /proc rw - proc proc rw\n"
    "3 2 0:52 /null /proc/kcore rw - devtmpfs dev rw\n"
    "4 1 8:1 /srv /data rw - ext4 /dev/sda1 rw\n"
    "5 1 8:1 /x /etc/hosts rw - ext4 /dev/sda1 rw\n"
    "6 1 0:53 / /run rw - tmpfs tmpfs rw\n"
)


def unnamed(more: str) -> list[str]:
    found = mounts.unnamed(mountinfo.parse(OWN + more), SPEC)
    return [mount.mount_point for mount in found]


def test_what_the_spec_names_is_fine() -> None:
    assert unnamed("") == []


def test_a_file_system_that_nobody_named() -> None:
    assert unnamed("7 1 8:2 / /mnt rw - ext4 /dev/sdb rw\n") == ["/mnt"]
    assert unnamed("7 1 0:60 / /mnt rw - ramfs none rw\n") == ["/mnt"]


def test_below_a_bind_even_a_tmpfs_is_too_much() -> None:
    assert unnamed("7 4 0:60 / /data/sub rw - tmpfs tmpfs rw\n") == ["/data/sub"]
    assert unnamed("7 1 0:60 / /database rw - tmpfs tmpfs rw\n") == []


def test_a_bind_within_the_container_comes_back_by_itself() -> None:
    assert unnamed("7 1 0:50 /usr/lib /mnt rw - overlay overlay rw\n") == []
    assert unnamed("7 1 8:1 /srv/part /mnt rw - ext4 /dev/sda1 rw\n") == []
    assert unnamed("7 1 8:1 /srv2 /mnt rw - ext4 /dev/sda1 rw\n") == ["/mnt"]
    assert unnamed("7 1 0:61 /usr/lib /mnt rw - overlay overlay rw\n") == ["/mnt"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        # A device, a directory and a socket of the node's own file systems: parts of what is not there as a whole.
        ("7 6 0:6 /nvidia0 /dev/nvidia0 rw - devtmpfs udev rw\n", ["/dev/nvidia0"]),
        (
            "7 2 0:22 /driver/nvidia/gpus/1 /proc/driver/nvidia/gpus/1 ro - proc proc rw\n",
            ["/proc/driver/nvidia/gpus/1"],
        ),
        ("7 6 0:24 /nvidia-persistenced/socket /run/socket rw - tmpfs tmpfs rw\n", ["/run/socket"]),
        # Parts of the container's own, and groups, whose root is a path of the host's.
        ("7 2 0:51 /sys /proc/sys ro - proc proc rw\n", []),
        ("7 6 0:53 /a /srv rw - tmpfs tmpfs rw\n", []),
        # In a user namespace runc binds devices, and tells CRIU of them.
        ("7 6 0:6 /null /dev/null rw - devtmpfs udev rw\n", []),
        ("7 1 0:70 /kubepods/a /sys/fs/cgroup ro - cgroup2 cgroup rw\n", []),
    ],
)
def test_a_part_of_a_file_system_needs_the_whole(line: str, found: list[str]) -> None:
    assert unnamed(line) == found


def linked_root(root: Path) -> str:
    """As distributions have it."""
    for name in ("run", "usr/lib", "var"):
        (root / name).mkdir(parents=True)
    (root / "var" / "run").symlink_to("/run")
    (root / "lib").symlink_to("usr/lib")
    return str(root)


LINKED: dict[str, Any] = {
    "mounts": [
        {"destination": "/var/run/data", "type": "bind", "source": "/srv/d", "options": ["rbind"]},
        {"destination": "/lib/firmware/gsp.bin", "type": "bind", "source": "/srv/g", "options": ["bind"]},
    ]
}
LINKED_MOUNTS = mountinfo.parse(
    "1 0 0:50 / / rw - overlay overlay rw\n"
    "2 1 8:1 /srv/d /run/data rw - ext4 /dev/sda1 rw\n"
    "3 1 8:1 /srv/g /usr/lib/firmware/gsp.bin rw - ext4 /dev/sda1 rw\n"
)


def test_links_of_the_image_are_followed(tmp_path: Path) -> None:
    root = linked_root(tmp_path)
    assert mounts.unnamed(LINKED_MOUNTS, LINKED, root) == []
    below = [*LINKED_MOUNTS, Mount("/run/data/sub", "/", "tmpfs", "tmpfs", ())]
    assert [mount.mount_point for mount in mounts.unnamed(below, LINKED, root)] == ["/run/data/sub"]
    assert not mounts.is_dumped(below[-1], LINKED, root)
    assert not mounts.is_dumped(Mount("/run/data", "/", "tmpfs", "tmpfs", ()), LINKED, root)
    assert mounts.is_dumped(Mount("/run/other", "/", "tmpfs", "tmpfs", ()), LINKED, root)


class Sides:
    """A container and its node, as directories."""

    def __init__(self, root: Path) -> None:
        self.inside, self.outside = root / "container", root / "node"
        for path in (self.inside / "lib", self.outside / "srv" / "driver"):
            path.mkdir(parents=True)
        (self.outside / "srv" / "driver" / "libcuda.so").write_text("library", encoding="ascii")
        os.link(self.outside / "srv" / "driver" / "libcuda.so", self.inside / "lib" / "libcuda.so")

    def take(self, mount: Mount, host: str) -> tuple[list[Taken], list[Mount]]:
        return mounts.take([mount], str(self.inside), mountinfo.parse(host), str(self.outside))


HOST = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /srv/driver /mnt rw - ext4 /dev/sda1 rw\n"
LIBRARY = Mount("/lib/libcuda.so", "/srv/driver/libcuda.so", "ext4", "/dev/sda1", ("ro", "nosuid", "relatime"), "8:1")


def test_what_the_node_has_is_taken(tmp_path: Path) -> None:
    """The way that leads to the same file: the shorter one is another here."""
    sides = Sides(tmp_path)
    (sides.outside / "mnt").mkdir()
    (sides.outside / "mnt" / "libcuda.so").write_text("another", encoding="ascii")
    taken, left = sides.take(LIBRARY, HOST)
    assert (taken, left) == ([Taken("/lib/libcuda.so", "/srv/driver/libcuda.so", ("ro", "nosuid"))], [])
    assert mounts.external(taken) == ["external=mnt[/lib/libcuda.so]:/lib/libcuda.so"]


@pytest.mark.parametrize(
    ("mount", "host"),
    [
        (LIBRARY, "1 0 8:2 / / rw - ext4 /dev/sdb1 rw\n"),
        (LIBRARY, "1 0 8:1 /other / rw - ext4 /dev/sda1 rw\n"),
        (Mount("/lib/libcuda.so", "/srv/driver/libcuda.so//deleted", "ext4", "a", (), "8:1"), HOST),
        (Mount("/lib/absent", "/srv/driver/libcuda.so", "ext4", "a", (), "8:1"), HOST),
        (Mount("/lib/with space", "/srv/driver/libcuda.so", "ext4", "a", (), "8:1"), HOST),
    ],
)
def test_what_the_node_does_not_have_is_left(tmp_path: Path, mount: Mount, host: str) -> None:
    sides = Sides(tmp_path)
    os.link(sides.inside / "lib" / "libcuda.so", sides.inside / "lib" / "with space")
    assert sides.take(mount, host) == ([], [mount])


def test_the_drivers_own_file_stands_in_for_a_hooks_copy(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    for root in (sides.inside, sides.outside):
        (root / "proc/driver/nvidia").mkdir(parents=True)
        (root / "proc/driver/nvidia/params").write_text(str(root), encoding="utf-8")
    copied = Mount("/proc/driver/nvidia/params", "/nvct-params", "tmpfs", "tmpfs", ("ro",), "0:90")
    taken, left = sides.take(copied, HOST)
    assert (taken, left) == ([Taken(copied.mount_point, copied.mount_point, ("ro",), stands_in=True)], [])
    (sides.outside / "proc/driver/nvidia/params").unlink()
    assert sides.take(copied, HOST) == ([], [copied])


def test_what_was_taken_is_a_bind_and_its_devices_are_allowed() -> None:
    taken = [Taken("/dev/nvidia0", "/dev/nvidia0", (), ("c", 195, 0)), Taken("/lib/a", "/srv/a", ("ro",))]
    rule = {"allow": False, "access": "rwm"}
    spec = {"mounts": [{"destination": "/proc"}], "linux": {"cgroupsPath": "/a", "resources": {"devices": [rule]}}}
    made = mounts.with_taken(spec, taken)
    assert [mount["destination"] for mount in made["mounts"]] == ["/proc", "/dev/nvidia0", "/lib/a"]
    bound = {"destination": "/lib/a", "type": "bind", "source": "/srv/a", "options": ["bind", "rprivate", "ro"]}
    assert made["mounts"][-1] == bound
    allowed = {"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rwm"}
    assert made["linux"] == {"cgroupsPath": "/a", "resources": {"devices": [rule, allowed]}}
    assert len(spec["mounts"]) == 1 and spec["linux"]["resources"] == {"devices": [rule]}

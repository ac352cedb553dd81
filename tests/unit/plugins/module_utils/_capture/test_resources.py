# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._capture import resources
from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo

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
    found = resources.unnamed_mounts(mountinfo.parse(OWN + more), SPEC)
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


def test_who_has_a_gpu_open(tmp_path: Path) -> None:
    for pid, target in ((7, "/dev/nvidia0"), (8, "/dev/null")):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "fd" / "3").symlink_to(target)
    assert resources.nvidia_devices([7, 8, 9], str(tmp_path)) == [7]


def test_devices_from_outside_for_input_and_output(tmp_path: Path) -> None:
    def process(pid: int, *targets: tuple[str, int]) -> None:
        for number, (target, mount) in enumerate(targets):
            for name in ("fd", "fdinfo"):
                (tmp_path / str(pid) / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{pid}/fd/{number}").symlink_to(target)
            (tmp_path / f"{pid}/fdinfo/{number}").write_text(f"pos:\t0\nmnt_id:\t{mount}\n", encoding="ascii")
        (tmp_path / f"{pid}/mountinfo").write_text(OWN, encoding="ascii")

    file = tmp_path / "file"
    file.touch()
    process(7, ("/dev/null", 99), ("pipe:[5]", 99), ("/dev/zero", 1), ("/dev/full", 99))
    process(8, ("/dev/null", 2), (str(file), 99))
    assert resources.foreign_devices([7, 8, 9], str(tmp_path)) == ["/dev/null as descriptor 0 of process 7"]

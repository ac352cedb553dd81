# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import private_mount

SNAPSHOTS = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"


def test_many_lower_directories_fit_a_page() -> None:
    lower = ":".join(f"{SNAPSHOTS}/{number}/fs" for number in range(200))
    upper = f"upperdir={SNAPSHOTS}/200/fs"
    options, directory = private_mount.shortened([upper, f"lowerdir={lower}"])
    assert directory == SNAPSHOTS and options[0] == upper
    assert options[1].startswith("lowerdir=0/fs:1/fs:") and len(",".join(options)) < 4096


@pytest.mark.parametrize("lower", ["/one", "relative:other", ""])
def test_what_needs_no_shortening_stays(lower: str) -> None:
    assert private_mount.shortened([f"lowerdir={lower}"]) == ([f"lowerdir={lower}"], "")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.every_python
def test_nobody_else_sees_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="ascii")
    found: list[object] = []

    def look(root: int) -> None:
        found.append(os.listdir(root))
        found.append(os.readlink(f"/proc/self/task/{os.getpid()}/ns/mnt") != os.readlink("/proc/thread-self/ns/mnt"))

    before, directory = os.listdir("/sys"), os.getcwd()
    private_mount.within("bind", str(tmp_path), ["rbind", "rw"], look)
    assert found == [["file"], True]
    assert os.listdir("/sys") == before and os.getcwd() == directory
    with pytest.raises(OSError):
        private_mount.within("no-such-file-system", "none", [], look)


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_what_another_process_sees_and_only_for_that() -> None:
    found: list[str] = []
    private_mount.seen_by(os.getpid(), lambda: found.append(os.readlink("/proc/thread-self/ns/mnt")))
    assert found == [os.readlink("/proc/self/ns/mnt")]
    with pytest.raises(OSError):
        private_mount.seen_by(2**22 + 1, lambda: None)

# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpuops.restore.plugins.module_utils._capture import resources

MOUNTS = "1 0 0:50 / / rw - overlay overlay rw\n2 1 0:51 / /proc rw - proc proc rw\n"


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
        (tmp_path / f"{pid}/ns").mkdir()
        (tmp_path / f"{pid}/ns/mnt").symlink_to(f"mnt:[{pid}]")
        own = MOUNTS if pid == 7 else "33 1 0:70 / /dev rw - tmpfs dev rw\n"
        (tmp_path / f"{pid}/mountinfo").write_text(own, encoding="ascii")

    file = tmp_path / "file"
    file.touch()
    process(7, ("/dev/null", 99), ("pipe:[5]", 99), ("/dev/zero", 1), ("/dev/full", 99))
    process(8, ("/dev/null", 2), (str(file), 99), ("/dev/zero", 33))
    assert resources.foreign_devices([7, 8, 9], str(tmp_path)) == ["/dev/null as descriptor 0 of process 7"]

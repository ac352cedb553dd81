# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A /proc and a cgroup tree made of files, in which real processes are one container."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


class FakeNode:
    """``options``: where it is, as wishes and questions take it. Sizes in bytes."""

    def __init__(self, root: Path, group: str = "box") -> None:
        self.proc, self.group = root / "proc", root / "cgroup" / group
        self.options: dict[str, Any] = {"proc": str(self.proc), "cgroup_root": str(root / "cgroup")}
        self.proc.mkdir(parents=True)
        self.group.mkdir(parents=True)
        self._path = group
        self.write_available(1 << 40)

    def write_available(self, size: int) -> None:
        """What the node has free."""
        text = f"MemTotal: 99 kB\nMemAvailable: {size // 1024} kB\n"
        (self.proc / "meminfo").write_text(text, encoding="ascii")

    def hold(self, pids: Iterable[int]) -> None:
        """Exactly these processes are in the group."""
        pids = list(pids)
        for pid in pids:
            directory = self.proc / str(pid)
            if not directory.exists():
                directory.mkdir()
                (directory / "stat").symlink_to(f"/proc/{pid}/stat")
                (directory / "status").symlink_to(f"/proc/{pid}/status")
                (directory / "cgroup").write_text(f"0::/{self._path}\n", encoding="ascii")
        (self.group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")

    def forget(self, pid: int) -> None:
        """A process has ended."""
        for path in (self.proc / str(pid)).iterdir():
            path.unlink()
        (self.proc / str(pid)).rmdir()

    def freeze(self, frozen: bool) -> None:
        """The group is frozen, or not."""
        (self.group / "cgroup.events").write_text(f"populated 1\nfrozen {int(frozen)}\n", encoding="ascii")

    def limit(self, limit: int | str, current: int, files: int = 0) -> None:
        """The group's memory limit (or ``max``), what it uses, and how much of that is file pages."""
        (self.group / "memory.max").write_text(f"{limit}\n", encoding="ascii")
        (self.group / "memory.current").write_text(f"{current}\n", encoding="ascii")
        text = f"anon 1\ninactive_file {files // 2}\nactive_file {files - files // 2}\n"
        (self.group / "memory.stat").write_text(text, encoding="ascii")
